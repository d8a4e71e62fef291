"""The contract of every store: jobs of several topics in one reservation."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from jobq.clock import ManualClock, SystemClock
from jobq.job import Reservation
from jobq.repo.base import ReserveRequest, Retention, Store
from jobq.repo.operations.flow import shares as operation
from jobq.repo.operations.flow.shares import MOST_KEPT, MOST_WINDOW
from jobq.repo.operations.reserve import MOST_BYTES
from jobq.repo.repositories import Figure, Transaction
from jobq.repo.transactional import DRAINS, TransactionalStore
from jobq.shares import Mix, Pattern, mix_of
from jobq.states import Outcome, Status
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, Opener, eventually
from tests.repo.conftest import Queue, done, release, spec
from tests.repo.test_contract_threads import asleep, asleep_or_gone


def mix(topics: Any, *, strict: bool = False) -> str | Mix:
    return mix_of(topics, strict=strict)


def take(store: Store, topics: Any, n: int = 1, *, strict: bool = False) -> list[Reservation]:
    return store.reserve(ReserveRequest(mix(topics, strict=strict), n))


def topics_of(jobs: list[Reservation]) -> str:
    """The topics of the jobs in their order, by their first letters."""
    return "".join(job.topic[0] for job in jobs)


def passes(store: Store) -> dict[str, int]:
    """The passes that are kept in the store."""
    assert isinstance(store, TransactionalStore)

    def look(tx: Transaction) -> dict[str, int]:
        names = {
            name: tx.topics.figure(number, Figure.PASS) for number, name in tx.topics.numbered(0)
        }
        return {name: at for name, at in names.items() if at}

    return store._read(look)


# Turns.


def test_jobs_come_in_the_order_of_turns(queue: Queue) -> None:
    mail, imports = queue.add_many(20, "mail"), queue.add_many(20, "import")
    held = take(queue.store, {"mail": 5, "import": 1}, 14)

    assert topics_of(held) == "mimmmmmimmmmmi"
    assert [job.id for job in held if job.topic == "mail"] == mail[:11]
    assert [job.id for job in held if job.topic == "import"] == imports[:3]
    assert {job.token for job in held} == {1}


def test_several_topics_share_alike(queue: Queue) -> None:
    for topic in "abc":
        queue.add_many(9, topic)

    assert topics_of(take(queue.store, ["c", "a", "b"], 9)) == "cab" * 3


def test_turns_go_on_where_the_last_call_has_left_them(queue: Queue) -> None:
    queue.add_many(50, "mail")
    queue.add_many(50, "import")
    sizes = (1, 1, 3, 1, 7, 1, 1)
    jobs = [job for n in sizes for job in take(queue.store, {"mail": 5, "import": 1}, n)]

    assert topics_of(jobs) == "mimmmmmimmmmmim"


def test_shares_are_kept_within_one_percent_whatever_the_sizes_of_calls(queue: Queue) -> None:
    sizes, given = random.Random(4), Counter[str]()
    store, wanted = queue.store, {"mail": 5, "import": 1.5, "report": 0.5}
    for topic in wanted:
        queue.add_many(8000, topic)
    while given.total() < 10_000:
        n = min(sizes.choice([1, 5, 100, 999]), 10_000 - given.total())
        held = take(store, wanted, n)
        given.update(job.topic for job in held)
        store.settle([done(job, keep_us=0) for job in held])

    for topic, share in wanted.items():
        assert abs(given[topic] - 10_000 * share / 7) < 0.01 * 10_000 * share / 7


def test_what_one_topic_does_not_have_others_give(queue: Queue) -> None:
    queue.add_many(2, "few")
    queue.add_many(10, "many")

    assert topics_of(take(queue.store, ["few", "many", "none"], 8)) == "fmfmmmmm"
    assert topics_of(take(queue.store, ["few", "many", "none"], 8)) == "mmmm"
    assert take(queue.store, ["few", "many", "none"], 8) == []


def test_a_topic_that_was_empty_does_not_make_up_for_it(queue: Queue) -> None:
    queue.add_many(400, "busy")
    queue.add("rare")
    assert len(take(queue.store, ["busy", "rare"], 300)) == 300
    queue.add_many(50, "rare")
    queue.add_many(50, "new")

    assert topics_of(take(queue.store, ["busy", "rare", "new"], 30)).count("b") in {9, 10}


def test_a_topic_that_others_were_served_with_does_not_wait_for_that(queue: Queue) -> None:
    queue.add_many(600, "a")
    queue.add_many(600, "b")
    queue.add_many(600, "c")
    take(queue.store, ["a", "b"], 1000)

    assert topics_of(take(queue.store, ["b", "c"], 20)).count("b") in {9, 10}


def test_new_topics_have_their_turns_even_if_each_call_takes_one_job(queue: Queue) -> None:
    for topic in "abcde":
        queue.add_many(9, topic)
    jobs = [job for _ in range(10) for job in take(queue.store, list("abcde"))]

    assert topics_of(jobs) == "abcdeabcde"


def test_passes_are_written_by_calls_that_name_several_topics_and_get_jobs(queue: Queue) -> None:
    store = queue.store
    for topic in "abc":
        queue.add_many(9, topic)
    for one in ("a", ["a"], {"a": 0.5}):
        take(store, one)
    take(store, ["x", "y"])
    take(store, ["a", "b"], 2, strict=True)
    assert passes(store) == {}

    take(store, ["a", "b"], 2)
    assert sorted(passes(store)) == ["a", "b"]

    take(store, Pattern("*"), 3)
    assert sorted(passes(store)) == ["a", "b", "c"]


def test_what_was_given_back_was_a_turn(queue: Queue) -> None:
    """Whoever releases what it gets does not get a topic to be served for ever."""
    queue.add_many(3, "a")
    queue.add_many(3, "b")
    given = []
    for _ in range(4):
        (held,) = take(queue.store, ["a", "b"])
        given.append(held)
        queue.release(held)

    assert topics_of(given) == "abab"


def test_jobs_of_a_topic_come_by_weight_and_place(queue: Queue) -> None:
    late, early = queue.add("a", weight=5), queue.add("a", weight=-5)
    other = queue.add("b", weight=0)

    assert [job.id for job in take(queue.store, ["a", "b"], 5)] == [early, other, late]


def test_turns_survive_a_restart(durable_opener: Opener) -> None:
    store = durable_opener()
    store.enqueue([spec(topic) for topic in "ab" for _ in range(30)])
    first = take(store, {"a": 3, "b": 1}, 3)
    durable_opener.close(store)
    again = take(durable_opener(), {"a": 3, "b": 1}, 9)

    assert topics_of(first + again) == "abaaabaaabaa"


def test_turns_survive_a_repair(queue: Queue) -> None:
    queue.add_many(9, "a")
    queue.add_many(9, "b")
    take(queue.store, ["a", "b"], 3)
    before = passes(queue.store)
    queue.store.check(repair=True)

    assert passes(queue.store) == before


def test_two_stores_of_one_queue_share_their_turns(shared_opener: Opener) -> None:
    stores = [shared_opener(), shared_opener()]
    stores[0].enqueue([spec(topic) for topic in "ab" for _ in range(30)])
    jobs = [job for at in range(20) for job in take(stores[at % 2], {"a": 4, "b": 1})]

    assert Counter(topics_of(jobs)) == {"a": 16, "b": 4}


def test_payloads_have_a_bound_over_all_topics_and_shares_are_kept(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic of large payloads gets its turns too, if those of others have to wait for that."""
    monkeypatch.setattr("jobq.repo.operations.reserve.MOST_BYTES", 1000)
    queue.store.enqueue([spec("large", payload=bytes(300)) for _ in range(40)])
    queue.store.enqueue([spec("small", payload=bytes(3)) for _ in range(400)])
    sizes, given = [], Counter[str]()
    while given["large"] < 40:
        held = take(queue.store, ["large", "small"], 50)
        sizes.append(sum(len(job.payload) for job in held))
        given.update(job.topic for job in held)

    assert MOST_BYTES == 64 * 2**20
    assert max(sizes) <= 1000
    assert min(sizes) > 0
    assert abs(given["small"] - 40) <= 50


def test_a_job_larger_than_the_bound_is_taken_alone(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobq.repo.operations.reserve.MOST_BYTES", 1000)
    for topic in "ab":
        queue.store.enqueue([spec(topic, payload=bytes(5000)) for _ in range(2)])

    assert [topics_of(take(queue.store, ["a", "b"], 9)) for _ in range(5)] == [
        "a",
        "b",
        "a",
        "b",
        "",
    ]
    assert queue.counts() == {"reserved": 4}


@pytest.mark.parametrize("group", [None, "g"])
def test_what_does_not_fit_in_any_more_stands_where_it_stood(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, group: str | None
) -> None:
    """Nobody foresees it: the payloads of these topics are small on average."""
    monkeypatch.setattr("jobq.repo.operations.reserve.MOST_BYTES", 1000)
    options: dict[str, Any] = {} if group is None else {"group": group}
    ids = {
        topic: queue.store.enqueue(
            [spec(topic, payload=bytes(size), **options) for size in (900, 1, 1, 1, 1, 1)]
        )
        for topic in "abc"
    }
    calls = []
    while held := take(queue.store, ["a", "b", "c"], 12):
        calls.append(held)
        assert queue.store.check().problems == ()

    assert max(sum(len(job.payload) for job in held) for held in calls) <= 1000
    assert len(calls) >= 3
    for topic, expected in ids.items():
        assert [job.id for held in calls for job in held if job.topic == topic] == expected


@pytest.mark.parametrize("n", [1, 7, 1000])
@pytest.mark.parametrize("group", [None, "g"])
def test_others_are_given_for_what_it_is_too_late_for(
    queue: Queue, clock: ManualClock, n: int, group: str | None
) -> None:
    options: dict[str, Any] = {} if group is None else {"group": group}
    mortal = [spec(topic, ttl=1.0, **options) for topic in "ab" for _ in range(800)]
    queue.store.enqueue(mortal)
    live = queue.store.enqueue([spec(topic, **options) for topic in "abcab"])
    clock.advance(1)
    handed: list[bytes] = []
    for _ in range(40):
        handed += [job.id for job in take(queue.store, ["a", "b", "c"], n)]

    assert sorted(handed) == live
    assert queue.counts() == {"reserved": 5, "canceled": 1600}


# Strict.


def test_strict_drains_the_first_before_the_second(queue: Queue) -> None:
    for topic in "abc":
        queue.add_many(3, topic)

    assert topics_of(take(queue.store, ["b", "x", "a", "c"], 7, strict=True)) == "bbbaaac"
    queue.add("b")
    assert topics_of(take(queue.store, ["b", "x", "a", "c"], 7, strict=True)) == "bcc"


def test_topics_of_a_pattern_share_alike_in_their_place_of_a_strict_order(queue: Queue) -> None:
    for topic in ("first", "m.a", "m.b", "m.first", "zlast"):
        queue.add_many(4, topic)
    order = ["m.first", "first", Pattern("m.*"), "zlast"]
    held = take(queue.store, order, 18, strict=True)

    assert [job.topic for job in held] == (
        ["m.first"] * 4 + ["first"] * 4 + ["m.a", "m.b"] * 4 + ["zlast"] * 2
    )


# Patterns.


def test_topics_of_one_call_stand_in_the_order_in_which_it_names_them(queue: Queue) -> None:
    """So jobs that were enqueued together, and are taken together, stand near each other."""
    names = [f"t{number * 37 % 100}" for number in range(100)]
    queue.store.enqueue([spec(name) for name in names])

    assert [job.topic for job in take(queue.store, Pattern("t*"), 100)] == names


def test_a_pattern_stands_for_topics_that_come_and_go(queue: Queue, clock: ManualClock) -> None:
    store, mails = queue.store, Pattern("mail.*")
    assert take(store, mails) == []
    queue.add("mail")
    queue.add("mail.a")
    assert [job.topic for job in take(store, mails, 9)] == ["mail.a"]
    queue.add("mail.b")
    queue.add("mail.a")
    assert [job.topic for job in take(store, mails, 9)] == ["mail.a", "mail.b"]
    store.delete([job.id for job in take(store, mails, 9)])

    for name in ("mail.a", "mail.b", "mail"):
        store.purge(name, frozenset(Status), None, 100)
    store.settle([])
    clock.advance(2 * 3600)
    store.advance()
    store.prune()
    queue.add("mail.c")
    queue.add("mail.b")
    assert [job.topic for job in take(store, mails, 9)] == ["mail.c", "mail.b"]


def test_a_topic_that_was_forgotten_and_made_again_is_found_by_its_name(
    queue: Queue, clock: ManualClock
) -> None:
    store = queue.store
    for topic in "ab":
        job_id = queue.add(topic)
        assert len(take(store, ["a", "b"], 2)) == 1
        store.cancel([job_id])
        store.delete([job_id])
    clock.advance(2 * 3600)
    store.prune()
    assert store.topics() == []

    queue.add("b")
    queue.add("a")
    assert topics_of(take(store, ["a", "b"], 2)) in {"ab", "ba"}


def test_a_name_has_its_own_share_and_the_first_pattern_has_the_rest(queue: Queue) -> None:
    for topic in ("a.1", "a.2", "b.1"):
        queue.add_many(60, topic)
    shares = {Pattern("a.*"): 2, "a.2": 4, Pattern("*"): 1}
    given = Counter(job.topic for job in take(queue.store, shares, 70))

    assert given == {"a.1": 20, "a.2": 40, "b.1": 10}


def test_a_name_is_one_topic_whatever_its_characters(queue: Queue) -> None:
    for topic in ("a*", "ab", "?", "x", "[a]", "a"):
        queue.add(topic)
    held = take(queue.store, ["a*", "?", "[a]", "**"], 9)

    assert sorted(job.topic for job in held) == ["?", "[a]", "a*"]


def test_a_choice_finds_a_topic_that_is_made_in_the_same_commit(queue: Queue) -> None:
    store = queue.store
    queue.add("a")
    (held,) = take(store, ["a", Pattern("b*")])
    follow = done(held, follow=(spec("b1"), spec("b2")))
    settled = store.settle([follow], ReserveRequest(mix(["a", Pattern("b*")]), 5))

    assert settled.outcomes == [Outcome.OK]
    assert sorted(job.topic for job in settled.reserved) == ["b1", "b2"]


def test_a_refused_commit_leaves_no_topic_behind_that_others_take_for_theirs(
    store: Store, queue: Queue
) -> None:
    """Its number may be given to another name."""
    assert isinstance(store, TransactionalStore)
    wanted = mix(["x", "y", Pattern("p*")])
    queue.add("a")

    def fail(tx: Transaction) -> None:
        tx.topics.number("x")
        tx.topics.number("p")
        assert isinstance(wanted, Mix)
        store._choices.of(tx, wanted)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store._write(fail, DRAINS)
    queue.add("other")
    queue.add("one more")
    assert store.reserve(ReserveRequest(wanted, 9)) == []
    queue.add("y")
    queue.add("p")

    assert sorted(job.topic for job in store.reserve(ReserveRequest(wanted, 9))) == ["p", "y"]


@pytest.mark.parametrize("n", [1, 7, 50])
def test_more_topics_than_one_call_looks_at_have_their_turns_alike(queue: Queue, n: int) -> None:
    topics, rounds = 3 * MOST_WINDOW + 11, 6
    queue.store.enqueue([spec(f"t{at}") for at in range(topics) for _ in range(4 * rounds)])
    given, total = Counter[str](), 0
    while total < rounds * topics:
        held = take(queue.store, Pattern("t*"), n)
        given.update(job.topic for job in held)
        total += len(held)

    assert len(given) == topics
    assert min(given.values()) >= rounds - 2
    assert max(given.values()) <= rounds + 2


@pytest.mark.parametrize(("jobs", "each"), [(1, 1), (2, 2), (5, 2)])
def test_of_more_topics_than_one_call_looks_at_it_takes_two_jobs_each(
    queue: Queue, jobs: int, each: int
) -> None:
    topics = 3 * MOST_WINDOW
    queue.store.enqueue([spec(f"t{at}") for at in range(topics) for _ in range(jobs)])
    wanted = {Pattern("t*"): 2}
    given = [Counter(job.topic for job in take(queue.store, wanted, 40)) for _ in range(3)]

    assert [set(topics.values()) for topics in given] == [{each}] * 3
    assert len({topic for topics in given for topic in topics}) == 120 / each


def test_a_topic_beside_a_pattern_of_many_has_its_share(queue: Queue) -> None:
    topics = 2 * MOST_WINDOW
    queue.store.enqueue([spec(f"t{at}") for at in range(topics) for _ in range(20)])
    queue.add_many(5000, "mail")
    given = Counter(
        job.topic
        for _ in range(60)
        for job in take(queue.store, {"mail": 32, Pattern("t*"): 1}, 50)
    )
    mails = given.pop("mail")

    assert mails == pytest.approx(3000 * 32 / (32 + topics), rel=0.1)
    assert max(given.values()) - min(given.values()) <= 4


def test_choices_are_kept_for_so_many_mixes(store: Store) -> None:
    assert isinstance(store, TransactionalStore)
    for number in range(MOST_KEPT + 20):
        take(store, ["a", f"b{number}"])

    assert len(store._choices._kept) == MOST_KEPT


def test_a_choice_does_not_grow_with_topics_that_come_and_go(
    queue: Queue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "RENEW", 20)
    store, wanted = queue.store, mix(Pattern("t*"))
    assert isinstance(store, TransactionalStore)
    assert isinstance(wanted, Mix)
    for number in range(200):
        job_id = queue.add(f"t{number}")
        (held,) = take(store, Pattern("t*"), 5)
        assert held.id == job_id
        queue.done(held, keep_us=0)
        clock.advance(3600)

    assert len(store._choices._kept[wanted]) < 100


# Waiting.


@dataclass
class Waits:
    """Threads that wait for jobs of several topics, soundly asleep."""

    store: Store
    crew: Crew

    def until(self, topics: Any, wakes: Callable[[], object], *, strict: bool = False) -> float:
        """Seconds from a call until a waiter that slept has a job; fewer than if it was missed."""
        got: list[Reservation] = []

        def wait() -> None:
            end = time.monotonic() + DEADLINE_S
            while not got and time.monotonic() < end:
                got.extend(take(self.store, topics, strict=strict))
                if not got:
                    self.store.wait(mix(topics, strict=strict), LONG_S)

        waiter = self.crew.start(wait)
        eventually(lambda: asleep_or_gone(waiter))
        start = time.monotonic()
        wakes()
        waiter.join(DEADLINE_S)
        took = time.monotonic() - start
        assert got
        assert took < SOON_S
        self.store.settle([done(job, keep_us=0) for job in got])
        return took


@pytest.fixture
def waits(opener: Opener, crew: Crew, sound_sleep: None) -> Waits:  # noqa: ARG001
    return Waits(opener(clock=SystemClock(), retention=Retention(0, 0)), crew)


@pytest.mark.parametrize("how", ["first", "second", "new", "pattern", "new, pattern", "strict"])
def test_a_job_of_any_of_the_topics_ends_the_sleep(how: str, waits: Waits) -> None:
    for round_ in range(2):
        first, second = f"first {round_}", f"second {round_}"
        topics: Any = [first, second]
        if not how.startswith("new"):
            for topic in topics:
                (job_id,) = waits.store.enqueue([spec(topic)])
                waits.store.delete([job_id])
        if how.endswith("pattern"):
            topics = [Pattern(f"* {round_}"), "never"]
        name = second if how != "first" else first

        waits.until(topics, partial(waits.store.enqueue, [spec(name)]), strict=how == "strict")


def test_a_job_that_comes_back_ends_the_sleep(waits: Waits) -> None:
    store = waits.store
    store.enqueue([spec("b")])
    (held,) = take(store, ["a", "b"])

    waits.until(["a", "b"], partial(store.settle, [release(held)]))


def test_a_job_that_is_there_ends_the_sleep_before_it_begins(waits: Waits) -> None:
    waits.store.enqueue([spec("b")])
    start = time.monotonic()
    for topics in (["a", "b"], Pattern("?"), ["x", Pattern("b*")]):
        for strict in (False, True):
            waits.store.wait(mix(topics, strict=strict), LONG_S)

    assert time.monotonic() - start < SOON_S


def test_jobs_of_other_topics_do_not_end_the_sleep(waits: Waits, crew: Crew) -> None:
    store = waits.store
    store.enqueue([spec("other"), spec("a"), spec("b")])
    assert len(take(store, ["a", "b"], 2)) == 2
    ended = threading.Event()

    def wait() -> None:
        store.wait(mix(["a", "b"]), LONG_S)
        ended.set()

    waiter = crew.start(wait)
    eventually(lambda: asleep(waiter))
    for _ in range(50):
        store.enqueue([spec("other")])
    eventually(lambda: asleep(waiter))
    assert not ended.is_set()
    store.enqueue([spec("a")])

    assert ended.wait(SOON_S)


def test_a_wait_for_several_topics_ends_in_time_and_when_called(waits: Waits, crew: Crew) -> None:
    store = waits.store
    start = time.monotonic()
    store.wait(mix(["a", "b"]), 0.05)
    store.wait(mix(["a", "b"]), 0)
    store.wait(mix(["a", "b"]), -1)
    assert 0.04 < time.monotonic() - start < SOON_S

    waiter = crew.start(store.wait, mix(["a", "b"]), LONG_S)
    eventually(partial(asleep, waiter))
    store.wake()
    crew.join(SOON_S)


def test_a_delayed_job_of_one_of_the_topics_comes_at_its_time(waits: Waits) -> None:
    for _ in range(2):  # at first the topic is new
        took = waits.until(["a", "b"], lambda: waits.store.enqueue([spec("b", delay=0.1)]))

        assert took > 0.09
