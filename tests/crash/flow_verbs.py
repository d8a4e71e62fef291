"""The cases of flow control: groups, limits, unique keys, deadlines, caps, lingering holds.

Topic `flow` is theirs alone: what goes on afterwards uses the others.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import jobq
from jobq import Job, JobService
from jobq.clock import SystemClock
from tests.crash.verbs import Case, hold_jobs, let_pass

SHORT_S: Final = 0.2
"""A lease that a test can wait for, and that is not over before it begins to."""

LATER: Final = datetime(2100, 1, 1, tzinfo=UTC)


def _groups(svc: JobService, **settings: Any) -> None:
    """Two groups with two jobs each, and a job without one."""
    svc.configure("flow", **{"group_concurrency": 1, **settings})
    for group in ("a", "b"):
        svc.enqueue_many("flow", [f"{group}1", f"{group}2"], group=group)
    svc.enqueue("flow", "p1")


def _with(
    more: Callable[[JobService], object] = lambda _: None, **settings: Any
) -> Callable[[JobService], None]:
    def fill(svc: JobService) -> None:
        _groups(svc, **settings)
        more(svc)

    return fill


def _key(svc: JobService, **options: Any) -> str:
    return svc.enqueue("flow", "first", unique="k", **options)


def _key_first(svc: JobService) -> None:
    """A job of a third group with a key, before all others."""
    _key(svc, weight=-1, group="c")


def _batch(svc: JobService, **options: Any) -> None:
    with svc.batch() as batch:
        batch.enqueue("flow", "again", unique="k", **options)
        batch.enqueue("flow", "other", unique="l", group="c")


def _hold_canceled(svc: JobService) -> list[Job]:
    """Two jobs that their holder works on, and does not know that they are canceled."""
    jobs = hold_jobs(2, "flow")(svc)
    svc.cancel([job.id for job in jobs])
    return jobs


def _hold_canceled_too_long(svc: JobService) -> list[Job]:
    svc.configure("flow", group_concurrency=2)
    svc.enqueue_many("flow", ["s1", "s2"], weight=-1, group="s", lease=SHORT_S)
    jobs = _hold_canceled(svc)
    let_pass(SystemClock().boot_us, int(SHORT_S * 1e6))
    return jobs


def _cancel_what_it_holds(svc: JobService) -> None:
    svc.cancel([job.id for job in svc.reserve("flow", 2, timeout=0)])


def _hold_and_make_lapse(svc: JobService) -> None:
    hold_jobs(1, "held")(svc)
    with svc.batch() as batch:
        batch.enqueue("flow", "t1", group="a", ttl=0.001)
        batch.enqueue("flow", "t2", group="a", unique="w", unique_for="waiting", ttl=0.001)
        batch.enqueue("flow", "t3", unique="t", delay=1000, ttl=0.001)
    let_pass(SystemClock().wall_us, 2000)


def _hold_at_the_rate(svc: JobService) -> None:
    hold_jobs(2, "flow")(svc)
    let_pass(SystemClock().boot_us, 2000)


def _hold_retried(svc: JobService) -> None:
    """A job that waits for its retry, and counts as reserved in its group."""
    (job,) = hold_jobs(1, "flow")(svc)
    job.retry(1000)


def _finish(svc: JobService) -> None:
    """A finished job that had a key, a group and a deadline; others of its group wait."""
    svc.enqueue("flow", "over", weight=-1, unique="k", group="a", ttl=36_000)
    svc.reserve("flow", timeout=0)[0].done("result")
    svc.enqueue_many("flow", ["a1", "a2"], group="a")


def _finish_more(svc: JobService) -> None:
    """The same, and finished jobs that had nothing of all that, done and canceled ones."""
    _finish(svc)
    done, canceled = svc.enqueue_many("flow", ["d", "c"], weight=-2)
    svc.cancel(canceled)
    svc.reserve("flow", timeout=0)[0].done("result")
    assert svc.status(done) == "done"


def _finished(svc: JobService) -> list[str]:
    return [job.id for job in svc.find(topic="flow", status=["done", "canceled"])]


def _all(svc: JobService) -> list[str]:
    return [job.id for job in svc.find(topic="flow", limit=1000)]


FLOW: Final = {
    "enqueue with a key": Case(lambda svc, _: _key(svc)),
    "enqueue with a key for a period": Case(lambda svc, _: _key(svc, unique_for=1000)),
    "enqueue where others have keys": Case(lambda svc, _: _batch(svc), fill=_key),
    "enqueue replacing": Case(
        lambda svc, _: _batch(svc, on_conflict="replace", delay=1000, weight=3), fill=_key
    ),
    "enqueue into a new group": Case(lambda svc, _: svc.enqueue("flow", "e", group="g")),
    "enqueue into groups": Case(
        lambda svc, _: svc.enqueue_many("flow", ["e1", "e2"], group="a"), fill=_groups
    ),
    "enqueue with a deadline": Case(
        lambda svc, _: svc.enqueue_many("flow", ["e1", "e2"], ttl=1000, delay=500)
    ),
    "enqueue dropping the oldest": Case(
        lambda svc, _: svc.enqueue_many("flow", ["e1", "e2"], group="c"),
        fill=_with(max_jobs=5, when_full="drop-oldest"),
    ),
    "enqueue dropping the lowest": Case(
        lambda svc, _: svc.enqueue_many("flow", ["e1", "e2"], weight=-1),
        fill=_with(max_jobs=5, when_full="drop-lowest"),
    ),
    "reserve of groups": Case(lambda svc, _: svc.reserve("flow", 3, timeout=0), fill=_groups),
    "reserve of limited groups": Case(
        lambda svc, _: svc.reserve("flow", 3, timeout=0),
        fill=_with(concurrency=2, rate=(100, 1.0), group_rate=(1, 1000.0)),
    ),
    "reserve with a key while waiting": Case(
        lambda svc, _: svc.reserve("flow", timeout=0),
        fill=lambda svc: _key(svc, unique_for="waiting", ttl=36_000),
    ),
    "done of groups": Case(
        lambda svc, held: svc.done_many(held), hold=hold_jobs(2, "flow"), fill=_groups
    ),
    "done with a key": Case(
        lambda _, held: held[0].done(then=[jobq.NewJob("flow", "then", unique="k")]),
        hold=hold_jobs(1, "flow"),
        fill=_key,
    ),
    "retry that blocks its group": Case(
        lambda _, held: held[0].retry(1000), hold=hold_jobs(1, "flow"), fill=_groups
    ),
    "retry that lets others by": Case(
        lambda _, held: held[0].retry(1000),
        hold=hold_jobs(1, "flow"),
        fill=_with(group_retries="pass"),
    ),
    "retry at once of a group": Case(
        lambda _, held: held[0].retry(0), hold=hold_jobs(1, "flow"), fill=_groups
    ),
    "release of groups": Case(
        lambda svc, held: svc.release_many(held), hold=hold_jobs(2, "flow"), fill=_groups
    ),
    "release that delays a group": Case(
        lambda svc, held: svc.release_many(held, delay=1000),
        hold=hold_jobs(2, "flow"),
        fill=_groups,
    ),
    "cancel by a holder of a group": Case(
        lambda _, held: held[0].cancel("rejected"), hold=hold_jobs(1, "flow"), fill=_groups
    ),
    "cancel while held": Case(
        lambda svc, held: svc.cancel([job.id for job in held]),
        hold=hold_jobs(2, "flow"),
        fill=_with(_key_first, concurrency=2),
    ),
    "cancel of groups": Case(lambda svc, _: svc.cancel(_all(svc)), fill=_groups),
    "cancel of a job that blocks its group": Case(
        lambda svc, _: svc.cancel(_all(svc)[:1]), hold=_hold_retried, fill=_groups
    ),
    "a call that comes too late": Case(
        lambda svc, held: svc.done_many(held),
        hold=_hold_canceled,
        fill=_with(_key_first, concurrency=2),
    ),
    "extend that comes too late": Case(
        lambda svc, held: svc.store.extend([(job._reservation.id, 1, 10**6) for job in held]),
        hold=_hold_canceled,
        fill=_groups,
    ),
    "a hold lingers no longer": Case(
        lambda svc, _: svc.store.advance(), hold=_hold_canceled_too_long, fill=_groups
    ),
    "a hold lingers no longer than its holder": Case(
        lambda svc, _: svc.store.advance(), victim=_cancel_what_it_holds, fill=_groups
    ),
    "delete what lingers": Case(
        lambda svc, held: svc.delete([job.id for job in held]), hold=_hold_canceled, fill=_groups
    ),
    "reset what lingers": Case(
        lambda svc, held: svc.reset([job.id for job in held]),
        hold=_hold_canceled,
        fill=_with(_key_first),
    ),
    "recover jobs of groups": Case(
        lambda svc, _: svc.store.advance(),
        fill=_with(lambda svc: _key(svc, weight=-1, unique_for="waiting", ttl=36_000)),
        victim=lambda svc: svc.reserve("flow", 3, timeout=0),
    ),
    "lapse": Case(lambda svc, _: svc.store.advance(), hold=_hold_and_make_lapse),
    "lanes at their rate may be served again": Case(
        lambda svc, _: svc.store.advance(),
        hold=_hold_at_the_rate,
        fill=_with(group_concurrency=None, group_rate=(1000, 1.0), group_burst=1),
    ),
    "reset with a key": Case(
        lambda svc, _: svc.reset([job.id for job in svc.find(topic="flow", status="done")]),
        fill=_finish,
    ),
    "reset with a new deadline": Case(
        lambda svc, _: svc.reset(_finished(svc), deadline=LATER, ttl=10**6),
        fill=_with(_finish_more),
    ),
    "reset with the deadline of a topic": Case(
        lambda svc, _: svc.reset(_finished(svc)),
        fill=_with(_finish_more, ttl=5000),
    ),
    "delete of groups": Case(lambda svc, _: svc.delete(_all(svc)), fill=_finish),
    "purge of groups": Case(lambda svc, _: svc.purge("flow"), fill=_finish),
    "edit of group, key and deadline": Case(
        lambda svc, _: svc.edit(_all(svc)[:1], group="z", unique="k", deadline=LATER), fill=_groups
    ),
    "edit of what had group, key and deadline": Case(
        lambda svc, _: svc.edit(
            _all(svc), group=None, unique=None, deadline=None, weight=1, payload="edited"
        ),
        fill=_with(lambda svc: _key(svc, group="a", deadline=LATER)),
    ),
    "edit putting off groups": Case(
        lambda svc, _: svc.edit(_all(svc), delay=2000), hold=_hold_retried, fill=_groups
    ),
    "edit moving groups": Case(
        lambda svc, _: svc.edit(_all(svc), topic="new"), hold=_hold_retried, fill=_groups
    ),
    "configure that lets more of each group run": Case(
        lambda svc, _: svc.configure("flow", group_concurrency=2),
        hold=hold_jobs(2, "flow"),
        fill=_groups,
    ),
    "pause": Case(lambda svc, _: svc.configure("flow", paused=True), fill=_groups),
    "configure of the store": Case(lambda svc, _: svc.configure(None, max_jobs=1000), fill=_groups),
    "drain": Case(
        lambda svc, _: svc.drain("flow", 0), fill=lambda svc: svc.enqueue("flow", "first")
    ),
    "release of keys": Case(lambda svc, _: svc.release_keys(["k"]), fill=_with(_key_first)),
    "release of groups' places": Case(
        lambda svc, _: svc.release_groups("flow", ["a", "b"]), hold=_hold_canceled, fill=_groups
    ),
    "release of a topic's places": Case(
        lambda svc, _: svc.release_limits("flow"),
        hold=_hold_canceled,
        fill=_with(concurrency=2, rate=(2, 1000.0)),
    ),
    "import of groups and keys": Case(lambda svc, _: svc.import_jobs(_others())),
}


def _others() -> list[Any]:
    with jobq.open(":memory:") as other:
        _finish(other)
        _key(other, group="b", ttl=36_000)
        other.reserve("flow", 2, timeout=0)[0].retry(1000)
        return list(other.export_jobs())


FLOW_MIXED: Final = {
    f"{name}, topics in memory": FLOW[name]._replace(topics="memory")
    for name in (
        *("enqueue replacing", "enqueue into groups", "enqueue dropping the oldest"),
        *("reserve of limited groups", "reserve with a key while waiting", "done of groups"),
        *("retry that blocks its group", "release of groups", "cancel while held"),
        *("a call that comes too late", "a hold lingers no longer", "lapse"),
        *("reset with a key", "reset with a new deadline", "delete of groups"),
        "edit of group, key and deadline",
        "configure that lets more of each group run",
    )
}
"""The same of queues whose topics are kept in memory."""
