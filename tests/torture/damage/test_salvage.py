"""Salvage: what is read out of a damaged file is right, as much as is left; nobody dies of it."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import jobq
from jobq.errors import InvalidValue, StoreCorrupt, StoreLocked
from jobq.repo.base import Salvaged
from tests.crash.conftest import Say
from tests.repo.lmdb import processes
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.raw import PAGE, records_of
from tests.torture.damage.damaging import TOPICS, WAYS, cut_short, make

Line = dict[str, Any]


def salvaged(path: Path) -> tuple[Salvaged, list[Line]]:
    """What can be saved, and the lines."""
    with jobq.salvage(path) as (found, lines):
        return found, [json.loads(json.dumps(line)) for line in lines]


def jobs_in(lines: list[Line]) -> dict[str, Line]:
    return {line["id"]: line for line in lines if line["kind"] == "job"}


def exported(path: Path) -> dict[str, Line]:
    with jobq.open(path, durability="unsafe") as svc:
        return jobs_in(json.loads(json.dumps(list(svc.export_jobs()))))


def make_queue(path: Path, jobs: int = 200) -> None:
    """A closed queue, with jobs in every state, and large payloads, and a topic with settings."""
    with jobq.open(path, durability="unsafe") as svc:
        svc.configure("mail", max_jobs=10_000, concurrency=50)
        svc.configure(None, max_jobs=50_000)
        dice = random.Random(7)
        svc.enqueue_many("mail", [dice.randbytes(dice.choice((9, 300, 9000))) for _ in range(jobs)])
        svc.enqueue_many("later", range(20), delay=3600)
        for job in svc.reserve("mail", 30, timeout=0):
            job.log("begun")
            job.progress(1, 2)
            kind = dice.randrange(4)
            if kind == 0:
                job.done({"n": 1})
            elif kind == 1:
                job.retry(0, error="again")
            elif kind == 2:
                job.cancel("rejected", error="never")
            else:
                job.release()


def test_of_a_sound_queue_all_is_saved_as_an_export_has_it(tmp_path: Path) -> None:
    make_queue(tmp_path / "queue")
    found, lines = salvaged(tmp_path / "queue")
    with jobq.open(tmp_path / "queue") as svc:
        whole = json.loads(json.dumps(list(svc.export_jobs())))

    assert found == Salvaged(220, 0, 0, 0, ())
    assert [line for line in lines if line["kind"] != "queue"] == whole[1:]
    assert lines[0]["last_place"] == whole[0]["last_place"]


def test_a_salvage_changes_nothing(tmp_path: Path) -> None:
    make_queue(tmp_path / "queue")
    before = (tmp_path / "queue" / "data.mdb").read_bytes()
    salvaged(tmp_path / "queue")

    assert (tmp_path / "queue" / "data.mdb").read_bytes() == before


def test_a_queue_with_its_topics_in_memory_is_saved_too(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", topics="memory", durability="unsafe") as svc:
        svc.enqueue_many("mail", range(50))
        svc.reserve("mail", timeout=0)[0].done()
    found, lines = salvaged(tmp_path / "queue")

    assert found == Salvaged(50, 0, 0, 0, ())
    assert Counter(line["status"] for line in jobs_in(lines).values()) == {"ready": 49, "done": 1}


def test_nobody_may_have_the_queue_open(tmp_path: Path) -> None:
    with (
        jobq.open(tmp_path / "queue", durability="unsafe"),
        pytest.raises(StoreLocked, match=r"cannot salvage .* this process"),
    ):
        salvaged(tmp_path / "queue")
    with jobq.salvage(tmp_path / "queue"), pytest.raises(StoreLocked, match="or it is salvaged"):
        jobq.open(tmp_path / "queue")
    jobq.open(tmp_path / "queue").close()


def test_what_is_no_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="holds no queue"):
        salvaged(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"no queue" * 5000)
    with pytest.raises(StoreCorrupt, match="destroyed"):
        salvaged(tmp_path)


# Damaged files.


def _try_mutants(path: str, seed: int, count: int, topics: str = "lmdb") -> None:
    """Damage a queue *count* times, and say what was saved of it each time."""
    original = make(Path(path, "original"), random.Random(seed))
    with jobq.open(Path(path, "original"), durability="unsafe", topics=topics) as svc:
        svc.enqueue(TOPICS[0], "a commit")  # and what was held is ready, as it is in an export
    data = Path(path, "original", "data.mdb").read_bytes()
    truth = exported(Path(path, "original"))
    mutant = Path(path, "mutant")
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        way = WAYS[number % len(WAYS)]
        damaged = bytearray(data)
        way(damaged, dice, original)
        shutil.rmtree(mutant, ignore_errors=True)
        mutant.mkdir()
        (mutant / "data.mdb").write_bytes(damaged)
        try:
            found, lines = salvaged(mutant)
        except StoreCorrupt:
            processes.say([way.__name__, number, None, 0, 0, []])
            continue
        wrong = _wrong_in(truth, found, lines, Path(path, "imported"), way.__name__)
        processes.say([way.__name__, number, found.lost, len(jobs_in(lines)), found.unsure, wrong])
    processes.say(None)


def _wrong_in(
    truth: dict[str, Line], found: Salvaged, lines: list[Line], imported: Path, way: str
) -> list[str]:
    """What must not be, of what was saved."""
    wrong = []
    jobs = jobs_in(lines)
    for field in ("payload", "payload_msgpack", "weight", "options", "created"):
        wrong += [
            f"{job_id} has a wrong {field}"
            for job_id in jobs.keys() & truth.keys()
            if jobs[job_id].get(field) != truth[job_id].get(field)
        ]
    # What contradicts the truth is said to be unsure, and what is missing to be lost.
    old = [job_id for job_id in jobs if not _stands_as_in(truth, jobs[job_id])]
    if len(old) > found.unsure:
        wrong.append(f"{len(old)} are old or strange, but said to be unsure are {found.unsure}")
    strange = jobs.keys() - truth.keys()
    if strange and way != "a_page_of_another_queue":
        wrong.append(f"{len(strange)} jobs that were never there")
    missing = len(truth.keys() - jobs.keys())
    if found.lost is not None and missing > found.lost:
        wrong.append(f"{missing} missing, but said to be lost are {found.lost}")
    shutil.rmtree(imported, ignore_errors=True)
    with jobq.open(imported, durability="unsafe") as svc:
        done = svc.import_jobs(lines)
        if done.jobs != len(jobs):
            wrong.append(f"{done.jobs} of {len(jobs)} can be imported")
        wrong += svc.check().problems
    return wrong


def _stands_as_in(truth: dict[str, Line], job: Line) -> bool:
    """Whether a job has its status, and its topic unless the name of that is lost."""
    true = truth.get(job["id"], {"status": "", "topic": ""})
    is_lost = job["topic"].startswith("lost-topic-")
    return bool(job["status"] == true["status"] and (is_lost or job["topic"] == true["topic"]))


def save_mutants(
    start: Start, path: Path, count: int, seed: int, tell: Say, topics: str = "lmdb"
) -> Counter[str]:
    """What was saved of so many damaged files: jobs, by how they were damaged; all of it right."""
    child = start(_try_mutants, str(path), seed, count, topics, deadline_s=60 + count // 2)
    saved: Counter[str] = Counter()
    while (answer := child.said()) is not None:
        way, number, lost, jobs, unsure, wrong = answer
        assert wrong == [], f"number {number}, {way}"
        saved.update({f"{way} files": 1, way: jobs, f"{way} unsure": unsure})
        saved[f"{way} lost"] += lost or 0
    child.join()
    for way in sorted(way.__name__ for way in WAYS):
        files, lost, unsure = (saved[f"{way} {what}"] for what in ("files", "lost", "unsure"))
        tell(f"{way:24} {files:5} files {saved[way]:6} saved {unsure:6} unsure {lost:5} lost")
    return saved


def test_what_is_saved_is_right_and_most_of_it_is_saved(
    start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    saved = save_mutants(start, tmp_path, 9 * 3, seed, say)

    # Of what happens to one page or two of them, most survives.
    one_page = [way.__name__ for way in WAYS if way is not cut_short]
    files = sum(saved[f"{way} files"] for way in one_page)
    assert sum(saved[way] for way in one_page) > 0.8 * 54 * files


@pytest.mark.storm
@pytest.mark.parametrize("topics", ["lmdb", "memory"])
def test_what_is_saved_is_right_of_many(
    start: Start, tmp_path: Path, seed: int, say: Say, topics: str
) -> None:
    for number in range(4):  # of as many queues
        path = tmp_path / str(number)
        path.mkdir()
        save_mutants(start, path, 9 * 30, seed + number, say, topics)


# What becomes of what.


def zero(path: Path, at: int) -> None:
    data = bytearray((path / "data.mdb").read_bytes())
    data[at * PAGE : (at + 1) * PAGE] = bytes(PAGE)
    (path / "data.mdb").write_bytes(data)


def page_of(path: Path, at: int) -> bytes:
    return (path / "data.mdb").read_bytes()[at * PAGE : (at + 1) * PAGE]


def put_page(path: Path, at: int, page: bytes) -> None:
    """Put a page in the place of another, under its number."""
    data = bytearray((path / "data.mdb").read_bytes())
    data[at * PAGE : (at + 1) * PAGE] = at.to_bytes(8, "little") + page[8:]
    (path / "data.mdb").write_bytes(data)


def roots(path: Path) -> dict[str, int]:
    """The page where each database begins."""
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env, env.begin() as txn:
        found = {
            bytes(key).decode(): bytes(value) for key, value in txn.cursor() if len(value) == 48
        }
    return {name: int.from_bytes(value[40:48], "little") for name, value in found.items()}


def test_with_the_root_of_the_jobs_destroyed_every_job_is_found_on_its_leaf(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    truth = exported(path)
    zero(path, roots(path)["jobs"])
    found, lines = salvaged(path)

    assert (found.jobs, found.lost) == (220, 0)
    assert jobs_in(lines) == truth
    assert any("passed over" in problem for problem in found.problems)


def test_what_was_forgotten_long_ago_does_not_come_back_with_lost_leaves(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("gone", [bytes(300)] * 300)
        svc.purge("gone")  # their pages are free now, and still have them
    truth = exported(path)
    zero(path, roots(path)["jobs"])
    _, lines = salvaged(path)

    assert jobs_in(lines) == truth


@pytest.mark.parametrize("name", ["states", "notes", "topics", "agenda", "queue", "flow", "meta"])
def test_no_job_is_lost_with_the_root_of_another_database(name: str, tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    truth = exported(path)
    zero(path, roots(path)[name])
    found, lines = salvaged(path)
    jobs = jobs_in(lines)

    assert jobs.keys() == truth.keys()
    assert {job_id: job["payload_msgpack"] for job_id, job in jobs.items() if "payload" not in job}
    if name == "topics":
        assert {job["topic"] for job in jobs.values()} == {"lost-topic-1", "lost-topic-2"}
    elif name == "states":
        # Its root is its only leaf, or what stood on the leaves is found.
        assert Counter(job["status"] for job in jobs.values()) == Counter(
            job["status"] for job in truth.values()
        )
    elif name == "notes":
        assert found.incomplete <= 30
    else:
        assert jobs == truth


def test_with_states_and_agenda_destroyed_every_job_that_has_moved_is_unsure(
    tmp_path: Path,
) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(30))
        for job in svc.reserve("mail", 10, timeout=0):
            job.done()
    there = roots(path)
    zero(path, there["states"])
    found, lines = salvaged(path)
    assert (found.jobs, found.unsure) == (30, 10)
    assert Counter(job["status"] for job in jobs_in(lines).values()) == {"ready": 20, "done": 10}

    zero(path, there["agenda"])
    found, lines = salvaged(path)
    assert (found.jobs, found.unsure) == (30, 10), "those that stand in the queue are sure"
    assert Counter(job["status"] for job in jobs_in(lines).values()) == {"ready": 30}


def test_a_damaged_result_costs_the_result_and_not_the_job(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        jid = svc.enqueue("mail", "payload")
        svc.reserve("mail", timeout=0)[0].done("the one result")
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data.replace(b"the one result", b"the odd result"))
    found, lines = salvaged(path)

    assert (found.jobs, found.lost, found.unsure, found.incomplete) == (1, 0, 0, 1)
    job = jobs_in(lines)[jid]
    assert (job["status"], job["payload"], "result" in job) == ("done", "payload", False)


def test_a_damaged_payload_costs_the_job_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", ["first", "the one payload", "third"])
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data.replace(b"the one payload", b"the odd payload"))
    found, lines = salvaged(path)

    assert (found.jobs, found.lost) == (2, 1)
    assert [job["payload"] for job in jobs_in(lines).values()] == ["first", "third"]


def test_of_a_file_that_was_cut_short_the_front_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", [bytes(200)] * 5000)
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data[: len(data) // 2])
    found, lines = salvaged(path)

    assert 1500 < found.jobs == found.unsure
    assert found.lost is None
    assert jobs_in(lines).keys() <= set(ids)


# What cannot be trusted although it is sound.


def set_field(path: Path, slot: int, at: int, change: Callable[[int], int]) -> None:
    """Change a number of 8 bytes in a meta page."""
    data = bytearray((path / "data.mdb").read_bytes())
    where = slice(slot * PAGE + at, slot * PAGE + at + 8)
    data[where] = change(int.from_bytes(data[where], "little")).to_bytes(8, "little")
    (path / "data.mdb").write_bytes(data)


def make_two_commits(path: Path) -> int:
    """A queue of two jobs whose last commit has done one of them; gives its newer meta page."""
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", ["first", "second"])
        for _ in range(10):  # until there are free pages, and the file need not grow
            svc.reserve("mail", timeout=0)[0].release()
        svc.reserve("mail", timeout=0)[0].done()
    txns = [
        int.from_bytes((path / "data.mdb").read_bytes()[at : at + 8], "little")
        for at in (TXN_AT, PAGE + TXN_AT)
    ]
    return txns.index(max(txns))


TXN_AT = 16 + 128
ROOT_AT = 16 + 24 + 48 + 40


@pytest.mark.parametrize(("older", "change"), [(0, -2), (0, -8), (1, 2), (1, 8)])
def test_what_may_not_be_the_last_commit_is_said_to_be_unsure(
    tmp_path: Path, older: int, change: int
) -> None:
    path = tmp_path / "queue"
    newest = make_two_commits(path)
    set_field(path, newest ^ older, TXN_AT, lambda txn: txn + change)
    found, lines = salvaged(path)

    assert (found.jobs, found.lost, found.unsure) == (2, None, 2)
    assert "the last commit may be missing" in found.problems[0]
    assert Counter(job["status"] for job in jobs_in(lines).values()) == {"ready": 1, "done": 1}, (
        "that commit is taken which says that it is the later one"
    )


def test_a_meta_page_that_leads_to_an_old_list_of_databases_is_not_believed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "queue"
    newest = make_two_commits(path)
    data = (path / "data.mdb").read_bytes()
    mine, other = (
        int.from_bytes(data[slot * PAGE + ROOT_AT :][:8], "little") for slot in (newest, newest ^ 1)
    )
    set_field(path, newest, ROOT_AT, lambda _: other)
    found, _ = salvaged(path)

    assert mine != other
    assert (found.jobs, found.unsure) == (2, 2)
    assert "both heads lead to the same commit" in found.problems[0]


def test_an_old_page_of_states_contradicts_the_index(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(10))
        svc.done_many(svc.reserve("mail", 5, timeout=0))
    old = page_of(path, roots(path)["states"])
    with jobq.open(path, durability="unsafe") as svc:
        svc.done_many(svc.reserve("mail", 2, timeout=0))
    put_page(path, roots(path)["states"], old)
    found, lines = salvaged(path)

    assert (found.jobs, found.lost, found.unsure) == (10, 0, 2)
    assert Counter(job["status"] for job in jobs_in(lines).values()) == {"ready": 3, "done": 7}, (
        "the agenda knows of those of which there is no state at all"
    )


def test_jobs_of_another_queue_make_nobody_forget_those_that_are_lost(tmp_path: Path) -> None:
    for name in ("queue", "other"):
        with jobq.open(tmp_path / name, durability="unsafe") as svc:
            svc.enqueue_many("mail", range(5))
    foreign = page_of(tmp_path / "other", roots(tmp_path / "other")["jobs"])
    put_page(tmp_path / "queue", roots(tmp_path / "queue")["jobs"], foreign)
    found, _ = salvaged(tmp_path / "queue")

    assert (found.jobs, found.lost, found.unsure) == (5, 5, 5)


def test_names_from_another_queue_are_not_believed(tmp_path: Path) -> None:
    for name, jobs in (("mail", 3), ("letters", 5)):
        with jobq.open(tmp_path / name, durability="unsafe") as svc:
            svc.enqueue_many(name, range(jobs))
    foreign = page_of(tmp_path / "letters", roots(tmp_path / "letters")["topics"])
    put_page(tmp_path / "mail", roots(tmp_path / "mail")["topics"], foreign)
    found, _ = salvaged(tmp_path / "mail")

    assert (found.jobs, found.unsure) == (3, 3)
    assert "topic number 1 does not count the jobs that are there" in found.problems


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    from jobq.repo.lmdb.access import SETTINGS_KEY
    from jobq.repo.lmdb.records import encode_settings

    assert [key for name, key, _ in records_of(path) if name == "meta" and key == SETTINGS_KEY]
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        db = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            txn.put(SETTINGS_KEY, encode_settings(SETTINGS_KEY, {"format": 999}), db=db)

    with pytest.raises(StoreCorrupt, match="format 999"):
        salvaged(path)
