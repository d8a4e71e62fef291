"""The verbs on whole topics, as users call them."""

import pytest

import jobq
from jobq import JobService, Status, TopicSettings
from jobq.clock import ManualClock


def test_configure_gives_all_settings_that_the_topic_has_then(svc: JobService) -> None:
    assert svc.configure("mail", keep_done=5) == TopicSettings(keep_done=5.0)
    assert svc.configure("mail", keep_canceled=0) == TopicSettings(5.0, 0.0)
    assert svc.configure("mail", keep_done=None) == TopicSettings(keep_canceled=0.0)
    assert svc.settings("mail") == TopicSettings(keep_canceled=0.0)
    assert svc.settings("other") == TopicSettings()


def test_done_and_canceled_jobs_are_kept_as_their_topic_says(
    svc: JobService, clock: ManualClock
) -> None:
    svc.configure("mail", keep_done=0.5, keep_canceled=0)
    done, canceled = svc.enqueue("mail"), svc.enqueue("mail")
    svc.reserve("mail")[0].done()
    svc.cancel(canceled)

    assert svc.status(done) is Status.DONE
    with pytest.raises(jobq.JobNotFound):
        svc.status(canceled)
    clock.advance(0.5)
    assert svc.prune() == 1


def test_settings_are_values(svc: JobService) -> None:
    settings = svc.configure("mail", keep_done=5)

    assert settings.as_dict() == {"keep_done": 5.0}
    assert settings == svc.settings("mail")
    assert hash(settings) == hash(svc.settings("mail"))


def test_purge_forgets_what_waits_and_says_how_many(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2500))
    svc.enqueue_many("mail", range(5), delay=60)
    svc.enqueue("other")
    (held,) = svc.reserve("mail")

    assert svc.purge("mail") == 2504
    assert svc.purge("mail") == 0
    held.done()
    assert (svc.stats("mail").totals.total, svc.stats("other").totals.total) == (1, 1)
    assert svc.purge("nowhere") == 0


@pytest.mark.parametrize("status", ["done", Status.DONE])
def test_purge_forgets_the_jobs_in_a_state_that_is_named(svc: JobService, status: str) -> None:
    svc.enqueue_many("mail", range(5))
    svc.done_many(svc.reserve("mail", 3))

    assert svc.purge("mail", status) == 3
    assert svc.stats().totals.ready == 2


def test_purge_refuses_what_somebody_holds(svc: JobService) -> None:
    svc.enqueue("mail")
    svc.reserve("mail")

    with pytest.raises(jobq.InvalidValue, match="canceled first"):
        svc.purge("mail", "reserved")
    assert svc.stats().totals.reserved == 1
