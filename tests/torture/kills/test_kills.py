"""Processes are killed by the thousand, and stopped past their leases: nothing is lost.

`tests/crash/test_storm.py` has the same with fewer kills and more of flow control. Here processes
are forked by one that is warm, and an oracle with a ledger knows what was acknowledged, who held
what, and until when.
"""

import random
import signal
from pathlib import Path
from typing import Final
from zlib import crc32

import pytest

import jobq
from jobq.repo.lmdb import LmdbStore
from tests.conftest import SOON_S, eventually
from tests.crash.boundaries import META_WRITTEN, at_its_calls
from tests.crash.conftest import Say
from tests.crash.processes import Pipe, Start, die_at
from tests.crash.repairs import LONG_REPAIRS, REPAIRS
from tests.crash.survey import SEEN, Moments, Survey, survey
from tests.crash.waiters import call_of, get_or_look, make_topics
from tests.torture.calls import why_not
from tests.torture.kills.sea import Storm, storm_over
from tests.torture.kills.zygote import Gale

PATIENCE_S: Final = 120.0
WORKERS: Final = 2
SAMPLE: Final = 2
LEAST_CALLS: Final = 8
"""The moments of one commit: pages are written and synced, then a meta page."""

needs_diverted_calls = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.mark.parametrize(
    "storm",
    [
        pytest.param(Storm(Gale(6, 0.008), 120, insists=True), id="short"),
        *(
            pytest.param(
                Storm(Gale(6, 0.012), 1_250, insists=True),
                id=f"long {part}",
                marks=pytest.mark.storm,
            )
            for part in range(16)
        ),
    ],
)
def test_nothing_is_lost_and_nothing_is_done_twice_though_processes_are_killed(
    storm: Storm,
    start: Start,
    tmp_path: Path,
    seed: int,
    say: Say,
    request: pytest.FixtureRequest,
) -> None:
    sea = storm_over(storm, start, tmp_path, crc32(f"{seed} {request.node.name}".encode()))
    say(sea.told())

    assert sea.problems == []
    assert sea.blown.kills >= storm.kills
    assert sea.figures.redelivered > 0, "no job was held by a victim: the storm shows nothing"
    assert sea.figures.amid > 0, "no verb was cut off: the storm shows nothing"


@pytest.mark.storm
def test_who_is_stopped_past_its_leases_is_refused_and_nothing_is_lost(
    start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    """Also with the write lock in its hands, and while its jobs are worked on by others."""
    gale = Gale(6, 0.06, stops=0.8, stop_s=1.5)
    sea = storm_over(Storm(gale, 250, lease_s=0.3), start, tmp_path, seed)
    say(sea.told())

    assert sea.problems == []
    assert sea.blown.stops > 500
    assert sea.figures.refused > 0, "nobody came too late: the storm shows nothing"


# At every call.


@needs_diverted_calls
def test_a_verb_killed_at_any_write_or_sync_is_whole_or_absent(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Some of them, by chance: before the call, amid it, and after it."""
    chance = random.Random(seed)
    for name in (*chance.sample(SEEN, SAMPLE), chance.choice(sorted(REPAIRS))):
        _kill_at_its_calls(name, start, quick_path, say)


@needs_diverted_calls
@pytest.mark.storm
@pytest.mark.parametrize("name", [*SEEN, *LONG_REPAIRS])
def test_every_verb_killed_at_any_write_or_sync_is_whole_or_absent(
    name: str, start: Start, quick_path: Path, say: Say
) -> None:
    _kill_at_its_calls(name, start, quick_path, say)


@needs_diverted_calls
def test_a_commit_that_its_writer_could_not_tell_of_shows_within_a_second_all_the_same(
    path: str, start: Start
) -> None:
    """Killed after the write that makes it a commit, and before others are told its number."""
    with jobq.open(path) as svc:
        make_topics(svc, "mail")
        producer, after = call_of(start, get_or_look, path, _enqueue_and_die, path)

        assert producer.ended() == -signal.SIGKILL
        assert after < SOON_S
        assert svc.check().ok


@needs_diverted_calls
def test_what_a_killed_process_reserved_in_a_commit_it_could_not_tell_of_comes_back(
    path: str, start: Start
) -> None:
    """Who looks for it sees that commit only once somebody has written since."""
    with jobq.open(path) as svc:
        job_id = svc.enqueue("mail")
        assert isinstance(svc.store, LmdbStore)
        holder = start(_reserve_and_die, path)
        assert holder.ended() == -signal.SIGKILL
        svc.store._probed = 0.0  # it is time to look for the dead again, and nobody has written
        eventually(lambda: svc.reserve("other", timeout=0.01) or svc.status(job_id) == "ready")

        assert [job.id for job in svc.reserve("mail", timeout=0)] == [job_id]
        assert svc.check().ok


# In the test.


def _kill_at_its_calls(name: str, start: Start, directory: Path, say: Say) -> None:
    parts = [
        start(survey, name, str(directory / f"{name} {part}"), Moments.CALLS, part, WORKERS)
        for part in range(WORKERS)
    ]
    surveys: list[Survey] = [part.hear(PATIENCE_S) for part in parts]
    kills = sum(one.runs for one in surveys)
    say(f"{name}: killed {kills} times")
    wrong = [line for one in surveys for line in one.wrong]

    assert not wrong, "\n".join(wrong)
    assert surveys[0].changed, "the case has no effect, so it shows nothing"
    assert kills >= LEAST_CALLS


def _enqueue_and_die(_: Pipe, path: str) -> None:
    svc = jobq.open(path)
    die_at(META_WRITTEN)
    at_its_calls(lambda svc, _: svc.enqueue("mail"))(svc, None)


def _reserve_and_die(_: Pipe, path: str) -> None:
    svc = jobq.open(path)
    die_at(META_WRITTEN)
    at_its_calls(lambda svc, _: svc.reserve("mail", timeout=0))(svc, None)
