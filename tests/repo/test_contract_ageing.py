"""The contract of every store: with ageing, so much waiting counts as one weight less."""

import pytest

from jobq.clock import ManualClock
from jobq.states import Outcome
from tests.conftest import Opener
from tests.repo.conftest import Queue


@pytest.fixture
def ageing(queue: Queue) -> Queue:
    """A queue of which the topic ages by one weight in ten seconds."""
    queue.store.configure("mail", {"ageing": 10.0})
    return queue


def test_an_old_job_of_low_priority_goes_before_a_new_one_of_higher(ageing: Queue) -> None:
    low = ageing.add(weight=2)
    ageing.clock.advance(20.001)
    high = ageing.add(weight=0)

    assert ageing.order() == [low, high]


def test_a_job_that_has_not_waited_for_long_enough_stays_behind(ageing: Queue) -> None:
    low = ageing.add(weight=2)
    ageing.clock.advance(19.999)
    high = ageing.add(weight=0)

    assert ageing.order() == [high, low]


def test_which_of_two_jobs_comes_first_does_not_change_while_they_wait(ageing: Queue) -> None:
    ids = []
    for weight in (5, 3, 0, 4, 1, 2, -3):
        ids.append(ageing.add(weight=weight))
        ageing.clock.advance(7.0)
    order = ageing.order()
    ageing.clock.advance(86_400.0)

    assert ageing.order() == order
    assert order != ids


@pytest.mark.parametrize("n", [1, 3, 100])
def test_however_many_are_asked_for_they_come_by_effective_weight(ageing: Queue, n: int) -> None:
    born = {}
    for number in range(60):
        weight = (number * 7) % 11 - 5
        born[ageing.add(weight=weight)] = (weight * 10.0 + number * 3.0, weight, number)
        ageing.clock.advance(3.0)
    order = []
    while held := ageing.take(n=n):
        order += [job.id for job in held]

    assert order == sorted(born, key=lambda job_id: born[job_id])


def test_within_one_weight_jobs_keep_their_places(ageing: Queue) -> None:
    first, second = ageing.add(), ageing.add()
    assert ageing.retry(ageing.take_one()) is Outcome.OK

    assert ageing.order() == [first, second]


def test_a_job_that_is_reset_goes_to_the_back_of_its_weight_however_old_it_is(
    ageing: Queue,
) -> None:
    old = ageing.add(weight=1)
    ageing.done(ageing.take_one())
    ageing.clock.advance(60.0)
    new = ageing.add(weight=1)
    ageing.reset(old)

    assert ageing.order() == [new, old]


def test_no_job_starves_behind_a_steady_stream(ageing: Queue) -> None:
    low = ageing.add(weight=2)
    taken = [b""]
    while taken[-1] != low:
        ageing.clock.advance(1.0)
        ageing.add(weight=0)
        taken.append(ageing.take_one().id)

    assert len(taken[1:]) == 21  # equal ones go by weight


def test_ageing_holds_at_once_when_it_is_set_and_unset(queue: Queue) -> None:
    low = queue.add(weight=1)
    queue.clock.advance(60.0)
    high = queue.add(weight=0)
    assert queue.order() == [high, low]

    queue.store.configure("mail", {"ageing": 10.0})
    assert queue.order() == [low, high]
    queue.store.configure("mail", {"ageing": None})
    assert queue.order() == [high, low]


# With groups.


def test_within_a_group_jobs_come_by_effective_weight(ageing: Queue) -> None:
    low = ageing.add(weight=2, group="a")
    ageing.clock.advance(30.0)
    high = ageing.add(weight=0, group="a")

    assert ageing.order() == [low, high]


def test_an_old_job_of_one_group_goes_before_new_ones_of_others(ageing: Queue) -> None:
    low = ageing.add(weight=2, group="a")
    ageing.clock.advance(30.0)
    high = [ageing.add(weight=0, group=group) for group in "bc"]
    own = ageing.add(weight=0)

    assert ageing.order() == [low, *high, own]


def test_groups_of_one_weight_take_turns_whatever_the_age_of_their_jobs(ageing: Queue) -> None:
    old = [ageing.add(group="a") for _ in range(3)]
    ageing.clock.advance(3600.0)
    new = [ageing.add(group="b") for _ in range(3)]

    assert ageing.order() == [old[0], new[0], old[1], new[1], old[2], new[2]]


def test_a_group_of_low_priority_does_not_starve_behind_others(ageing: Queue) -> None:
    low = ageing.add(weight=2, group="slow")
    taken = [b""]
    while taken[-1] != low:
        ageing.clock.advance(1.0)
        ageing.add(weight=0, group=f"group {len(taken) % 3}")
        taken.append(ageing.take_one().id)

    assert len(taken[1:]) == 21


@pytest.mark.parametrize("n", [4, 100])
def test_groups_come_in_one_order_however_many_are_asked_for(opener: Opener, n: int) -> None:
    orders = []
    for size in (1, n):
        clock = ManualClock()
        queue = Queue(opener(f"by {size}", clock=clock), clock)
        queue.store.configure("mail", {"ageing": 10.0, "group_concurrency": 4})
        for number in range(40):
            queue.add(weight=number * 7 % 5, group=f"{number % 7}", payload=bytes([number]))
            clock.advance(2.0)
        order: list[int] = []
        while held := queue.take(n=size):
            order += [job.payload[0] for job in held]
        orders.append(order)

    assert orders[0] == orders[1]
    assert len(orders[0]) == 28


def test_ageing_moves_groups_at_once_when_it_is_set(queue: Queue) -> None:
    low = queue.add(weight=1, group="a")
    queue.clock.advance(60.0)
    high = queue.add(weight=0, group="a")
    other = queue.add(weight=0, group="b")
    assert queue.order() == [high, other, low]

    queue.store.configure("mail", {"ageing": 10.0})
    assert queue.order() == [low, other, high]
