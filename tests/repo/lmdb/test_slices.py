"""Slices of time are shortened where transactions lose them, and only then and there."""

import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import jobq
from jobq.repo.lmdb.slices import LOST_S, SHORT_S, WHILE_S, Slices
from tests.conftest import eventually

USUAL_S = 0.005


class Machine:
    """Two clocks: of the time, and of what this thread has computed."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.computed_s = 1.0

    def works(self, *, computing: float, waiting: float) -> float:
        """What takes so many seconds; gives the switch interval meanwhile."""
        self.now_s += computing + waiting
        self.computed_s += computing
        return sys.getswitchinterval()


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_S)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def slices(machine: Machine) -> Slices:
    return Slices(lambda: machine.now_s, lambda: machine.computed_s)


def run(slices: Slices, machine: Machine, *, computing: float = 0.0, waiting: float = 0.0) -> float:
    return slices.run(lambda: machine.works(computing=computing, waiting=waiting))


def test_they_are_left_alone_where_nothing_is_lost(slices: Slices, machine: Machine) -> None:
    for _ in range(5):
        assert run(slices, machine, computing=0.001) == pytest.approx(USUAL_S)


def test_work_that_is_long_by_itself_does_not_shorten_them(
    slices: Slices, machine: Machine
) -> None:
    for _ in range(5):
        assert run(slices, machine, computing=10 * LOST_S) == pytest.approx(USUAL_S)


def test_the_third_of_three_that_lose_them_has_short_ones(slices: Slices, machine: Machine) -> None:
    used = [run(slices, machine, computing=0.001, waiting=2 * LOST_S) for _ in range(3)]
    assert used == pytest.approx([USUAL_S, USUAL_S, SHORT_S])
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)


def test_a_single_loss_is_of_no_account(slices: Slices, machine: Machine) -> None:
    for waiting in (2 * LOST_S, 0.0) * 3:
        assert run(slices, machine, waiting=waiting) == pytest.approx(USUAL_S)


def test_after_a_while_it_is_looked_again(slices: Slices, machine: Machine) -> None:
    for _ in range(3):
        run(slices, machine, waiting=2 * LOST_S)
    machine.now_s += WHILE_S
    assert run(slices, machine) == pytest.approx(USUAL_S)


def test_they_are_as_before_after_an_error(slices: Slices, machine: Machine) -> None:
    for _ in range(2):
        run(slices, machine, waiting=2 * LOST_S)

    def fails() -> None:
        assert sys.getswitchinterval() == pytest.approx(SHORT_S)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        slices.run(fails)
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)


def test_two_that_shorten_them_at_once_put_back_what_was_there(machine: Machine) -> None:
    both = [Slices(lambda: machine.now_s, lambda: machine.computed_s) for _ in range(2)]
    for slices in both:
        for _ in range(2):
            run(slices, machine, waiting=2 * LOST_S)
    first, second = both

    def outer() -> float:
        inside = second.run(sys.getswitchinterval)
        assert sys.getswitchinterval() == pytest.approx(SHORT_S)
        return inside

    assert first.run(outer) == pytest.approx(SHORT_S)
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)


def test_what_the_program_sets_meanwhile_stays(slices: Slices, machine: Machine) -> None:
    for _ in range(2):
        run(slices, machine, waiting=2 * LOST_S)
    slices.run(lambda: sys.setswitchinterval(0.02))
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_what_is_shorter_already_stays(slices: Slices, machine: Machine) -> None:
    sys.setswitchinterval(SHORT_S / 5)
    used = [run(slices, machine, waiting=2 * LOST_S) for _ in range(3)]
    assert used == pytest.approx([SHORT_S / 5] * 3)
    assert sys.getswitchinterval() == pytest.approx(SHORT_S / 5)


def test_a_queue_beside_threads_that_compute_works_and_leaves_them_as_they_were(
    tmp_path: Path,
) -> None:
    stop = threading.Event()
    turns = [0, 0]

    def compute(which: int) -> None:
        for turns[which] in count():
            if stop.is_set():
                return

    threads = [threading.Thread(target=compute, args=(which,)) for which in range(2)]
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: all(turns))
            for _ in range(10):
                svc.enqueue_many("mail", range(100))
                assert len(svc.done_many(svc.reserve("mail", 100, timeout=0))) == 100
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)
