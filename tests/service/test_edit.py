"""Editing jobs, as users call it."""

from datetime import timedelta
from typing import Any

import pytest

import jobq
from jobq import JobOptions, JobService, Outcome, Status
from jobq.clock import ManualClock
from jobq.repo.base import Store
from tests.conftest import DEADLINE_S, Crew, Opener


def test_what_is_given_changes_and_the_rest_stays(svc: JobService) -> None:
    job_id = svc.enqueue("mail", {"to": "ann"}, weight=2, lease=5, name="n")
    before = svc.get(job_id)
    svc.edit(job_id, payload={"to": "bob"}, lease=7)
    after = svc.get(job_id)

    assert after.payload == {"to": "bob"}
    assert after.options == JobOptions(lease=7.0, name="n")
    assert (after.topic, after.weight, after.created) == ("mail", 2, before.created)


def test_none_is_a_payload_and_unsets_options(svc: JobService) -> None:
    job_id = svc.enqueue("mail", "text", name="n", retention=5)
    svc.edit(job_id, payload=None, name=None)

    assert svc.get(job_id).payload is None
    assert svc.get(job_id).options == JobOptions(retention=5.0)


def test_keep_leaves_the_payload(svc: JobService) -> None:
    job_id = svc.enqueue("mail", "text")
    svc.edit(job_id, payload=jobq.KEEP, weight=4)

    assert (svc.get(job_id).payload, svc.get(job_id).weight) == ("text", 4)


def test_the_defaults_of_the_service_are_not_written_into_edited_jobs(store: Store) -> None:
    with JobService(store) as plain:
        job_id = plain.enqueue("mail")
        JobService(store, lease=5, max_retries=3).edit(job_id, name="n")

        assert plain.get(job_id).options == JobOptions(name="n")


@pytest.mark.parametrize("delay", [30, 30.0, timedelta(seconds=30)])
def test_a_delay_counts_from_now(svc: JobService, clock: ManualClock, delay: Any) -> None:
    job_id = svc.enqueue("mail", delay=10)
    clock.advance(5)
    svc.edit(job_id, delay=delay)

    assert svc.get(job_id).due_us == clock.wall_us() + 30_000_000


def test_a_job_in_any_other_state_says_that_it_cannot_be_edited(svc: JobService) -> None:
    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    with pytest.raises(jobq.InvalidTransition, match=r"is reserved: cannot edit \(only ready, del"):
        svc.edit(job.id, weight=1)
    job.done()
    with pytest.raises(jobq.InvalidTransition, match="is done: cannot edit"):
        svc.edit(job.id, weight=1)
    svc.delete(job.id)
    with pytest.raises(jobq.JobNotFound):
        svc.edit(job.id, weight=1)


def test_several_jobs_give_outcomes(svc: JobService) -> None:
    first, second = svc.enqueue_many("mail", [1, 2])
    svc.cancel(first)

    assert svc.edit([first, second], topic="other") == [Outcome.INVALID, Outcome.OK]
    assert svc.edit([], topic="other") == []
    assert svc.edit(iter([second]), weight=1) == [Outcome.OK]


def test_a_payload_past_the_limit_is_refused(store: Store) -> None:
    with JobService(store, max_payload=100) as svc:
        job_id = svc.enqueue("mail", "x")

        with pytest.raises(jobq.PayloadTooLarge):
            svc.edit(job_id, payload="x" * 200)
        assert svc.get(job_id).payload == "x"


@pytest.mark.parametrize("change", [{"topic": "new"}, {"delay": 0}], ids=["moved", "made ready"])
def test_who_waits_is_woken_by_a_job_that_an_edit_makes_ready(
    opener: Opener, crew: Crew, change: dict[str, Any]
) -> None:
    topic = change.get("topic", "old")
    with JobService(opener()) as svc:
        job_id = svc.enqueue("old", "x", delay=0 if "topic" in change else 500)
        got: list[str] = []
        waiter = crew.start(
            lambda: got.extend(job.id for job in svc.reserve(topic, timeout=DEADLINE_S))
        )
        svc.edit(job_id, **change)
        waiter.join(DEADLINE_S)

        assert got == [job_id]
        assert svc.status(job_id) is Status.RESERVED
