"""The yardsticks of the benchmarks do the work that they are measured by.

Those of the extra `bench` are tried where it is installed.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks import workloads
from benchmarks.sides import PEERS, SIDES, present
from benchmarks.yardsticks.parts import Payload, Queue

PAYLOADS = workloads.payloads(20)
DURABLE = [name for name in SIDES if name not in ("lmdb_bare", "jobq memory")]
"""Those that can be opened again: the bare one counts for itself what it has written."""


@pytest.fixture(params=list(SIDES))
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue[Any]]:
    queue = opened(request.param, tmp_path)
    yield queue
    queue.close()


def opened(side: str, directory: Path) -> Any:
    """The side's queue; the test is skipped where its package is not installed."""
    if side in PEERS:
        pytest.importorskip(PEERS[side][0])
    return SIDES[side](directory / side)


def lived(queue: Queue[Any], n: int) -> list[Payload]:
    """The payloads of the next *n* jobs, each of them finished."""
    jobs = queue.reserve(n)
    payloads = [queue.payload(job) for job in jobs]
    assert queue.done_many(jobs) == len(jobs)
    return payloads


@pytest.mark.parametrize("n", [1, 20])
def test_each_side_gives_every_job_once_in_order(queue: Queue[Any], n: int) -> None:
    for start in range(0, len(PAYLOADS), n):
        queue.enqueue_many(PAYLOADS[start : start + n])

    came = [payload for _ in range(0, len(PAYLOADS), n) for payload in lived(queue, n)]

    assert came == PAYLOADS
    assert queue.reserve(1) == []


def test_a_job_that_is_held_is_not_given_again(queue: Queue[Any]) -> None:
    queue.enqueue_many(PAYLOADS[:2])

    held, other = queue.reserve(1), queue.reserve(2)

    assert [queue.payload(job) for job in held + other] == PAYLOADS[:2]
    assert queue.done_many(held) == queue.done_many(other) == 1


@pytest.mark.parametrize("side", DURABLE)
def test_what_was_enqueued_is_there_when_the_queue_is_opened_again(
    side: str, tmp_path: Path
) -> None:
    for payload in PAYLOADS[:3]:
        queue = opened(side, tmp_path)
        queue.enqueue_many([payload])
        queue.close()

    queue = opened(side, tmp_path)
    came = lived(queue, 3)
    queue.close()

    assert came == PAYLOADS[:3]


@pytest.mark.parametrize("side", [name for name in SIDES if name != "lmdb_bare"])
def test_threads_share_a_side_and_get_every_job_once(side: str, tmp_path: Path) -> None:
    queue = opened(side, tmp_path)

    def live(payloads: list[Payload]) -> list[Payload]:
        came = []
        for payload in payloads:
            queue.enqueue_many([payload])
            came += lived(queue, 1)
        return came

    with ThreadPoolExecutor(4) as threads:
        shares = threads.map(live, [PAYLOADS[start::4] for start in range(4)])
        came = [payload for share in shares for payload in share]
    queue.close()

    assert sorted(payload["n"] for payload in came) == list(range(len(PAYLOADS)))


def test_hueys_worker_calls_the_task_with_each_payload_and_no_task_is_left(tmp_path: Path) -> None:
    pytest.importorskip("huey")
    from benchmarks.yardsticks.huey_sqlite import HueyTasks

    came: list[Payload] = []
    tasks = HueyTasks(tmp_path, came.append)
    for payload in PAYLOADS:
        tasks.enqueue(payload)
    waiting = tasks.waiting()
    tasks.work(len(PAYLOADS))

    assert came == PAYLOADS
    assert (waiting, tasks.waiting()) == (len(PAYLOADS), 0)
    tasks.close()


@pytest.mark.parametrize(
    ("side", "rows"),
    [
        ("litequeue", "SELECT count(*) FROM Queue"),
        ("persist-queue", "SELECT count(*) FROM ack_queue_default"),
    ],
)
def test_a_peer_that_searches_what_is_finished_forgets_it_after_each_hundred(
    side: str, rows: str, tmp_path: Path
) -> None:
    payloads = workloads.payloads(120)
    queue = opened(side, tmp_path)
    queue.enqueue_many(payloads)
    first = [payload for _ in range(105) for payload in lived(queue, 1)]
    connection = queue._queue.conn if side == "litequeue" else queue._queue._putter
    (left,) = connection.execute(rows).fetchone()
    rest = lived(queue, 20)
    queue.close()

    assert left == 20
    assert first + rest == payloads


def test_every_connection_of_the_peers_flushes_each_commit(tmp_path: Path) -> None:
    """`synchronous` is 2, FULL, in every one of their connections, over a write-ahead log."""
    huey = opened("huey", tmp_path)
    lite = opened("litequeue", tmp_path)
    persist = opened("persist-queue", tmp_path)
    connections = [
        huey._storage.conn,
        lite._queue.conn,
        persist._queue._getter,
        persist._queue._putter,
    ]

    said = [
        [one.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
        for one in connections
    ]
    for queue in (huey, lite, persist):
        queue.close()

    assert said == [[2, "wal"]] * 4


def test_a_side_whose_package_is_missing_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.sides.find_spec", lambda _: None)

    assert present(["jobq", "huey", "persist-queue"]) == ["jobq"]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "left out: huey: huey is not installed (pip install -e '.[bench]')"
    assert second.startswith("left out: persist-queue: persist-queue is not installed")
