"""What a selector means, against a reading of its attributes one by one."""

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobq.options import JobOptions
from jobq.selector import ALL_JOBS, EVERY_STATUS, Selector
from jobq.states import Reason, Status

FEW = st.sampled_from(["a", "b", "aa"])
OPTIONS = st.builds(
    JobOptions,
    name=st.none() | FEW,
    tags=st.none() | st.lists(FEW, unique=True).map(lambda tags: tuple(sorted(tags))),
    group=st.none() | FEW,
    unique=st.none() | FEW,
)
SELECTORS = st.builds(
    Selector,
    topic=st.none() | FEW,
    statuses=st.just(EVERY_STATUS) | st.frozensets(st.sampled_from(Status)),
    name=st.none() | FEW,
    tags=st.frozensets(FEW, max_size=2),
    group=st.none() | FEW,
    unique=st.none() | FEW,
    reasons=st.none() | st.frozensets(st.sampled_from(Reason)),
    dead=st.none() | st.booleans(),
    error=st.none() | FEW,
    older_than_us=st.none() | st.integers(0, 3),
)


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    status = draw(st.sampled_from(Status))
    return {
        "topic": draw(FEW),
        "status": status,
        "reason": draw(st.sampled_from(Reason)) if status is Status.CANCELED else None,
        "options": draw(OPTIONS),
        "age_us": draw(st.integers(0, 4)),
        "error": draw(st.none() | st.text("ab", max_size=3)),
    }


def meant(field: str, wanted: Any, job: dict[str, Any]) -> bool:
    """Whether a job has what one attribute of a selector asks for."""
    options = job["options"]
    if field == "tags":
        return all(tag in (options.tags or ()) for tag in wanted)
    if field == "statuses":
        return job["status"] in wanted
    if wanted is None:
        return True
    if field == "reasons":
        return job["status"] is Status.CANCELED and job["reason"] in wanted
    if field == "dead":
        is_dead = job["status"] is Status.CANCELED and job["reason"] is not Reason.CANCELED
        return bool(wanted) == is_dead
    if field == "error":
        return job["error"] is not None and wanted in job["error"]
    if field == "older_than_us":
        return bool(job["age_us"] >= wanted)
    return bool(wanted == (job["topic"] if field == "topic" else getattr(options, field)))


@given(SELECTORS, jobs())
def test_a_job_matches_that_has_all_that_is_asked_for(
    selector: Selector, job: dict[str, Any]
) -> None:
    said = {**job, "error": lambda: job["error"]}
    expected = all(
        meant(field.name, getattr(selector, field.name), job) for field in fields(Selector)
    )

    assert selector.matches(**said) is expected
    assert not expected or job["status"] in selector.possible


@given(SELECTORS, jobs(), st.frozensets(st.sampled_from(Status)))
def test_within_states_it_matches_the_jobs_in_them(
    selector: Selector, job: dict[str, Any], statuses: frozenset[Status]
) -> None:
    said = {**job, "error": lambda: job["error"]}

    assert selector.within(statuses).matches(**said) is (
        selector.matches(**said) and job["status"] in statuses
    )


@given(jobs())
def test_without_filters_every_job_matches(job: dict[str, Any]) -> None:
    assert ALL_JOBS.matches(**{**job, "error": lambda: job["error"]})


def test_an_error_is_read_only_of_a_job_that_fits_otherwise() -> None:
    def read() -> str:
        raise AssertionError

    job = ("mail", Status.READY, None, JobOptions(), 0, read)

    assert not Selector(topic="sms", error="x").matches(*job)
    assert Selector(topic="mail").matches(*job)


def test_it_tells_people_what_it_selects() -> None:
    every = Selector(
        "mail", frozenset({Status.DONE, Status.READY}), "n", frozenset({"b", "a"}), "g", "k",
        dead=False, error="refused", older_than_us=90_000_000,
    )  # fmt: skip

    assert str(every) == (
        "ready, done jobs that are no dead letters of topic 'mail' named 'n' tagged 'a', 'b' "
        "of group 'g' with unique key 'k' with 'refused' in their error older than 90 s"
    )
    assert str(Selector(reasons=frozenset({Reason.POISON}))) == "canceled jobs (poison)"
