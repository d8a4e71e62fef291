"""Jobs by what is known of them: counted, looked at, and changed many at once."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobq import BulkProgress, JobService, Outcome, Selection, Status
from jobq.clock import ManualClock
from jobq.errors import InvalidValue, PayloadTooLarge, StoreFull
from jobq.repo.memory import MemoryStore
from jobq.selector import ALL_JOBS, Selector
from jobq.service.bulk import CHANGED, LOOKED_AT, How, Pause, Run
from jobq.service.latch import Latch
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, Opener
from tests.service.coroutines import counts, run


@pytest.fixture
def memory(clock: ManualClock) -> Iterator[JobService]:
    """A service in memory, for what does not depend on the store."""
    with JobService(MemoryStore(clock=clock)) as svc:
        yield svc
        assert svc.check().problems == ()


def dead_letters(svc: JobService, count: int, topic: str = "mail") -> list[str]:
    svc.enqueue_many(topic, range(count))
    jobs = svc.reserve(topic, count)
    for job in jobs:
        job.cancel("rejected", "refused")
    return [job.id for job in jobs]


# What is selected.


def test_a_selection_counts_and_lists_what_matches_now(svc: JobService) -> None:
    dead = dead_letters(svc, 3)
    selection = svc.select(dead=True, reason=["rejected", "poison"], error="refused")
    before = selection.count()
    svc.reset(dead[0])

    assert (before, selection.count()) == (3, 2)
    assert [job.id for job in selection.find(limit=1)] == dead[1:2]
    assert [job.id for job in selection.find(after=dead[1])] == dead[2:]
    assert [job.id for job in selection] == [job.id for job in svc.find(dead=True)] == dead[1:]
    assert str(selection) == "dead letters (rejected, poison) with 'refused' in their error"


def test_a_loop_over_a_selection_reads_all_pages(memory: JobService) -> None:
    ids = memory.enqueue_many("mail", range(250), tags=["a"])
    memory.enqueue("sms")

    async def main() -> list[str]:
        return [job.id async for job in memory.select(tag="a")]

    assert [job.id for job in memory.select(tag=["a"])] == ids
    assert run(main()) == ids


def test_find_and_select_take_the_same_filters(svc: JobService, clock: ManualClock) -> None:
    old = svc.enqueue("mail", name="n", tags=["a", "b"], group="g", unique="k")
    clock.advance(60)
    svc.enqueue("sms")
    for filters in (
        {"topic": "mail"},
        {"name": "n"},
        {"tag": ["a", "b"]},
        {"tag": "b"},
        {"group": "g"},
        {"unique": "k"},
        {"older_than": 60},
        {"older_than": timedelta(minutes=1)},
        {"topic": "mail", "status": ("ready", Status.DONE), "dead": False},
    ):
        given: Any = filters
        assert [job.id for job in svc.find(**given)] == [old], given
        assert svc.select(**given).count() == 1, given


@pytest.mark.parametrize("filters", [{}, {"topic": None}, {"dead": None, "status": None}])
def test_nothing_given_selects_nothing_unless_everything_is_asked_for(
    memory: JobService, filters: Any
) -> None:
    memory.enqueue_many("mail", range(3))
    with pytest.raises(InvalidValue, match="no filter is given: expected at least one of topic"):
        memory.select(**filters)

    assert memory.select(everything=True, **filters).delete().changed == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"everything": True, "topic": "mail"}, "everything is True, and there are filters"),
        ({"everything": 1}, "everything is 1: expected True or False"),
        ({"color": "red"}, "unknown filter 'color': expected one of topic"),
        ({"dead": "yes"}, "dead is 'yes': expected True or False"),
        ({"status": []}, "status is empty: expected one of ready"),
        ({"status": ["ready", "lost"]}, "status is 'lost': expected one of ready"),
        ({"reason": "because"}, "reason is 'because': expected one of canceled"),
        ({"tag": []}, "tag is empty"),
        ({"tag": 5}, "tag is 5: expected text"),
        ({"group": ""}, "group is ''"),
        ({"error": ""}, "error is ''"),
        ({"older_than": -1}, "older_than is -1: expected at least 0 seconds"),
    ],
)
def test_a_wrong_filter_is_refused_at_once(
    memory: JobService, arguments: Any, message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        memory.select(**arguments)


# What is done to it.


def test_each_verb_changes_all_that_match_and_can_be_changed_so(svc: JobService) -> None:
    dead_letters(svc, 3)
    svc.enqueue_many("mail", range(4), name="n")
    svc.enqueue_many("mail", range(2), delay=5)
    svc.enqueue("sms")
    (held,) = svc.reserve("sms")
    mail = svc.select(topic="mail")

    assert mail.edit(weight=7, name="m").changed == 6
    assert {job.weight for job in svc.find(name="m")} == {7}
    assert svc.select(name="m", status="ready").move("other").changed == 4
    assert counts(svc, "other") == {"ready": 4}
    assert mail.cancel(error="not wanted").changed == 2
    assert [job.error for job in svc.find(error="not wanted")] == ["not wanted"] * 2
    assert svc.select(dead=True).reset().changed == 3
    assert {job.resets for job in svc.find(topic="mail", status="ready")} == {1}
    assert svc.select(everything=True).delete().changed == 9
    assert counts(svc) == {"reserved": 1}
    assert svc.select(status="reserved").cancel().changed == 1
    assert held.canceled


def test_what_is_moved_keeps_its_order_behind_what_is_there(svc: JobService) -> None:
    mail = svc.enqueue_many("mail", range(3))
    there = svc.enqueue("slow")
    svc.select(topic="mail").move("slow")

    assert [job.id for job in svc.reserve("slow", 9)] == [there, *mail]


@pytest.mark.parametrize(
    ("filters", "verb", "message"),
    [
        ({"status": "done"}, "cancel", "cannot cancel done jobs: expected only ready, delayed"),
        ({"dead": True}, "cancel", "cannot cancel canceled jobs"),
        ({"status": ["ready", "done"]}, "reset", "cannot reset ready jobs"),
        ({"status": "reserved"}, "delete", "cannot delete reserved jobs"),
        ({"reason": "poison"}, "move", "cannot edit canceled jobs"),
    ],
)
def test_a_state_in_which_it_cannot_be_is_refused(
    memory: JobService, filters: Any, verb: str, message: str
) -> None:
    memory.enqueue("mail")
    arguments = ["sms"] if verb == "move" else []
    with pytest.raises(InvalidValue, match=message):
        getattr(memory.select(**filters), verb)(*arguments)

    assert counts(memory) == {"ready": 1}


def test_wrong_arguments_are_refused_before_anything_changes(memory: JobService) -> None:
    dead_letters(memory, 2)
    selection: Any = memory.select(dead=True)
    waiting: Any = memory.select(status="ready")
    for rate in (0, -1, True, "5", float("nan"), float("inf"), 10**7):
        with pytest.raises(InvalidValue, match="rate is"):
            selection.reset(rate=rate)
    with pytest.raises(InvalidValue, match="dry_run is 1"):
        selection.reset(dry_run=1)
    with pytest.raises(InvalidValue, match="progress is 5"):
        selection.delete(progress=5)
    with pytest.raises(InvalidValue, match="there is nothing to change"):
        waiting.edit()
    with pytest.raises(InvalidValue, match="topic is ''"):
        waiting.move("")
    with pytest.raises(PayloadTooLarge):
        waiting.edit(payload=b"x" * 2**20)

    assert counts(memory) == {"canceled": 2}


def test_a_dry_run_says_how_many_and_changes_nothing(svc: JobService) -> None:
    ids = dead_letters(svc, 3)
    svc.enqueue_many("mail", range(2))
    told: list[BulkProgress] = []
    result = svc.select(topic="mail").reset(dry_run=True, progress=told.append)

    assert (result.matched, result.changed, result.left) == (3, 0, 0)
    assert result.looked in (3, 5), "jobs that have not moved need not be looked at"
    assert result.outcomes == {}
    assert told[-1].outcomes == dict.fromkeys(ids, Outcome.OK)
    assert counts(svc) == {"canceled": 3, "ready": 2}


# In steps.


def test_steps_are_bounded_and_told_one_by_one(memory: JobService) -> None:
    memory.enqueue_many("mail", range(700))
    memory.enqueue_many("sms", range(600))
    told: list[BulkProgress] = []
    result = memory.select(topic="mail").cancel(progress=told.append)
    sizes = [len(step.outcomes) for step in told]
    looked = [0, *(step.looked for step in told)]

    assert (result.looked, result.matched, result.changed) == (1024, 700, 700)
    assert result.complete
    assert sizes == [CHANGED, CHANGED, 700 - 2 * CHANGED, 0]
    assert max(after - before for before, after in pairwise(looked)) == LOOKED_AT
    assert [step.changed for step in told] == [256, 512, 700, 700]
    assert (told[-1].looked, told[-1].matched) == (1024, 700), "then none is left to look for"
    assert {outcome for step in told for outcome in step.outcomes.values()} == {Outcome.OK}


def test_what_changes_between_reading_and_writing_is_left_alone_and_counted(
    memory: JobService,
) -> None:
    """After the first commit of a page others change jobs of its second one."""
    ids = memory.enqueue_many("mail", range(2 * CHANGED), name="n")
    moved, renamed, gone = ids[-3:]

    def meddle(step: BulkProgress) -> None:
        if step.changed == CHANGED:
            memory.edit(moved, topic="sms")
            memory.edit(renamed, name="m")
            memory.delete(gone)

    result = memory.select(topic="mail", name="n").cancel(progress=meddle)

    assert result.matched == 2 * CHANGED
    assert result.outcomes == {
        Outcome.OK: 2 * CHANGED - 3, Outcome.INVALID: 2, Outcome.MISSING: 1,
    }  # fmt: skip
    assert result.left == 3
    assert memory.get(moved).status == memory.get(renamed).status == "ready"


def test_jobs_whose_unique_key_another_has_by_now_are_left_and_counted(svc: JobService) -> None:
    first = svc.enqueue("mail", unique="k")
    svc.cancel(first)
    second = svc.enqueue("mail", unique="k")
    svc.cancel(second)
    svc.enqueue_many("mail", range(2))
    svc.select(unique=None, status="ready").cancel()
    result = svc.select(status="canceled").reset()

    assert result.outcomes == {Outcome.OK: 3, Outcome.CONFLICT: 1}
    assert (svc.status(first), svc.status(second)) == ("ready", "canceled")
    assert svc.select(unique="k").count() == 2


def test_jobs_of_groups_are_moved_with_their_groups(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2), group="a")
    svc.enqueue_many("mail", range(2), group="b")
    svc.select(group="a").move("slow")

    assert [job.options.group for job in svc.find(topic="slow")] == ["a", "a"]
    assert [job.payload for job in svc.reserve("slow", 4)] == [0, 1]
    assert svc.select(topic="mail", group="a").count() == 0


def test_newcomers_are_not_touched(memory: JobService) -> None:
    memory.enqueue_many("mail", range(LOOKED_AT + 10))
    late: list[str] = []
    result = memory.select(topic="mail").edit(
        weight=1, progress=lambda _: late.append(memory.enqueue("mail"))
    )

    assert result.changed == LOOKED_AT + 10
    assert {memory.get(job_id).weight for job_id in late} == {0}


def test_jobs_that_are_moved_within_the_selection_come_once(memory: JobService) -> None:
    """Each has a new place then, but it is not met again."""
    memory.enqueue_many("a", range(300))
    memory.enqueue_many("b", range(300))
    seen: Counter[str] = Counter()
    result = memory.select(status="ready").move(
        "b", progress=lambda step: seen.update(step.outcomes.keys())
    )

    assert (result.changed, len(seen), set(seen.values())) == (600, 600, {1})


def test_a_selection_of_the_present_stays_with_the_jobs_of_then(memory: JobService) -> None:
    memory.enqueue_many("mail", range(3))
    empty = memory.select(topic="sms").present()
    present = memory.select(topic="mail").present()
    memory.enqueue("mail")
    memory.enqueue("sms")

    assert (present.count(), memory.select(topic="mail").count()) == (3, 4)
    assert present.present().cancel().changed == 3
    assert empty.cancel().matched == 0
    assert counts(memory) == {"canceled": 3, "ready": 2}


def test_what_progress_raises_ends_the_verb_and_what_was_done_stands(memory: JobService) -> None:
    memory.enqueue_many("mail", range(CHANGED + 1))

    def enough(_: BulkProgress) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        memory.select(topic="mail").cancel(progress=enough)

    assert counts(memory) == {"canceled": CHANGED, "ready": 1}


def test_large_payloads_are_written_in_smaller_commits(memory: JobService) -> None:
    memory.enqueue_many("mail", range(40))
    told: list[int] = []
    memory.select(topic="mail").edit(
        payload=b"x" * 900_000, progress=lambda step: told.append(len(step.outcomes))
    )

    assert told == [18, 18, 4]


def test_a_full_store_ends_an_edit_and_goes_on_with_others(durable_opener: Opener) -> None:
    with JobService(durable_opener(max_size=2 * 2**20)) as svc:
        svc.enqueue_many("mail", range(30))
        with pytest.raises(StoreFull):
            svc.select(topic="mail").edit(payload=b"x" * 500_000)
        assert svc.select(topic="mail").cancel().changed == 30


# At a rate.


class Sleeper:
    """Stands for the clock and for who sleeps: time goes by only in `wait`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def open(self) -> None:
        pass

    def wait(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now += seconds
        return False


@pytest.mark.parametrize(
    ("rate", "commits", "pauses"),
    [
        (2.0, [1, 1, 1, 1, 1], [0, 0.5, 0.5, 0.5, 0.5]),
        (0.5, [1, 1, 1, 1, 1], [0, 2, 2, 2, 2]),
        (100.0, [5], [0]),
        (25.0, [2, 2, 1], [0, 0.08, 0.08]),
    ],
)
def test_jobs_come_evenly_at_their_rate(
    memory: JobService, rate: float, commits: list[int], pauses: list[float]
) -> None:
    memory.enqueue_many("mail", range(5))
    store, sleeper = memory.store, Sleeper()
    bulk = Run(store, ALL_JOBS, None, store.cancel, How(rate), now=lambda: sleeper.now)
    told = []
    while (step := bulk.step()) is not None:
        if isinstance(step, Pause):
            sleeper.wait(step.seconds)
        else:
            told.append(len(step.outcomes))

    assert told == commits
    assert sleeper.slept == pytest.approx(pauses)
    assert bulk.result().changed == 5


def test_time_that_commits_take_is_no_time_to_wait(memory: JobService) -> None:
    memory.enqueue_many("mail", range(3))
    store, sleeper = memory.store, Sleeper()

    def slow(ids: list[bytes]) -> list[Outcome]:
        sleeper.now += 0.75
        return store.cancel(ids)

    bulk = Run(store, Selector("mail"), None, slow, How(1.0), now=lambda: sleeper.now)
    while (step := bulk.step()) is not None:
        if isinstance(step, Pause):
            sleeper.wait(step.seconds)

    assert sleeper.slept == pytest.approx([0, 0.25, 0.25])


def test_dead_letters_are_reset_at_a_rate(memory: JobService) -> None:
    dead_letters(memory, 3)
    sleeper: Any = Sleeper()
    memory._holding.stopping = sleeper
    result = memory.select(dead=True).reset(rate=0.001)

    assert result.changed == 3
    assert sleeper.slept == pytest.approx([0, 1000, 2000], abs=100)  # its clock is not told
    assert counts(memory) == {"ready": 3}


def test_stopping_the_service_ends_the_waiting_for_a_rate(memory: JobService, crew: Crew) -> None:
    ids = dead_letters(memory, 5)
    begun = threading.Event()
    results = []

    def work() -> None:
        selection = memory.select(dead=True)
        results.append(selection.reset(rate=0.001, progress=lambda _: begun.set()))

    crew.start(work)
    assert begun.wait(DEADLINE_S)
    memory.stop()
    crew.join()
    (result,) = results

    assert (result.changed, result.complete) == (1, False)
    assert memory.status(ids[0]) == "ready"
    assert memory.select(dead=True).reset(rate=1).changed == 0
    assert memory.select(dead=True).reset().changed == 4, "what waits for nothing goes on"


def test_a_signal_handler_may_stop_the_service_whose_verb_waits(
    memory: JobService, crew: Crew
) -> None:
    """It runs on the thread that sleeps, in the middle of whatever that does there."""
    dead_letters(memory, 5)
    begun = threading.Event()

    def interrupt() -> None:
        assert begun.wait(DEADLINE_S)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: memory.stop())
    try:
        crew.start(interrupt)
        result = memory.select(dead=True).reset(rate=0.001, progress=lambda _: begun.set())
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert (result.changed, result.complete) == (1, False)


def test_a_latch_lets_all_through_for_good() -> None:
    latch = Latch()
    before = latch.wait(0)
    latch.open()
    latch.open()

    assert not before
    assert [latch.wait(0), latch.wait(5), latch.wait(1e300)] == [True] * 3


def test_a_latch_wakes_every_sleeper(crew: Crew) -> None:
    latch = Latch()
    woken: list[bool] = []
    begin = time.monotonic()
    for _ in range(3):
        crew.start(lambda: woken.append(latch.wait(LONG_S)))
    latch.open()
    crew.join()

    assert woken == [True] * 3
    assert time.monotonic() - begin < SOON_S


# For coroutines.


def test_coroutines_have_all_of_it(svc: JobService) -> None:
    async def main() -> None:
        ids = dead_letters(svc, 3)
        dead: Selection = svc.select(dead=True)
        told: list[BulkProgress] = []
        assert await dead.acount() == 3
        assert [job.id for job in await dead.afind(limit=2)] == ids[:2]
        assert (await dead.areset(dry_run=True)).matched == 3
        assert (await dead.areset(rate=1000, progress=told.append)).changed == 3
        assert sum(len(step.outcomes) for step in told) == 3
        mail = svc.select(topic="mail")
        present = await mail.apresent()
        await svc.aenqueue("mail")
        assert (await present.aedit(weight=2)).changed == 3
        assert (await mail.amove("sms")).changed == 4
        sms = svc.select(topic="sms")
        assert (await sms.acancel(error="x")).changed == 4
        assert (await sms.adelete()).changed == 4
        with pytest.raises(InvalidValue):
            await sms.areset(rate=0)
        with pytest.raises(InvalidValue):
            await dead.acancel()

    run(main())
    assert counts(svc) == {}


def test_a_stopped_service_ends_the_waiting_of_a_coroutine(memory: JobService) -> None:
    dead_letters(memory, 5)

    async def main() -> None:
        result = await memory.select(dead=True).areset(rate=0.001, progress=lambda _: memory.stop())
        assert (result.changed, result.complete) == (1, False)

    run(main())
