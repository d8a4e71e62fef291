import pytest

from jobq.errors import InvalidTransition
from jobq.states import (
    FINISHED,
    TRANSITIONS,
    Event,
    Outcome,
    Reason,
    Status,
    can_move,
    invalid_transition,
)
from tests.moves import MOVES


def test_there_are_exactly_five_states() -> None:
    assert [str(status) for status in Status] == [
        "ready", "delayed", "reserved", "done", "canceled",
    ]  # fmt: skip


def test_a_job_is_canceled_for_one_of_these_reasons() -> None:
    assert {str(reason) for reason in Reason} == {
        "canceled", "rejected", "exhausted", "expired", "poison", "dropped",
    }  # fmt: skip


def test_what_became_of_one_job_of_several_is_one_of_five() -> None:
    assert {str(outcome) for outcome in Outcome} == {
        "ok", "stale", "missing", "invalid", "conflict",
    }  # fmt: skip


def test_the_table_has_the_moves_of_the_design_and_no_other() -> None:
    assert dict(TRANSITIONS) == MOVES


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("event", Event)
def test_a_move_that_is_not_in_the_table_is_none(status: Status | None, event: Event) -> None:
    assert can_move(status, event) is ((status, event) in MOVES)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[Status.DONE, Event.DONE] = frozenset()  # type: ignore[index]


def test_every_state_can_be_reached_and_only_a_finished_job_is_pruned() -> None:
    reached = set().union(*MOVES.values())
    pruned = {status for status, event in TRANSITIONS if event is Event.PRUNE}

    assert reached == set(Status)
    assert pruned == FINISHED == {Status.DONE, Status.CANCELED}


def test_a_refused_move_says_what_the_job_is_and_which_jobs_could() -> None:
    error = invalid_transition("7", Status.READY, Event.RESET)

    assert isinstance(error, InvalidTransition)
    assert str(error) == "job 7 is ready: cannot reset (only done, canceled jobs can)"
