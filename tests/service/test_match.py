"""Jobs by a part of their id."""

from typing import Any

import pytest

from jobq import JobService, ids
from jobq.errors import InvalidValue
from jobq.service import matching


def without_dashes(job_id: str) -> str:
    return job_id.replace("-", "")


def test_any_part_of_an_id_finds_it(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    digits = without_dashes(job_id)

    parts = [digits[at : at + size] for size in (1, 7, 8, 31, 32) for at in range(33 - size)]
    assert [svc.match(part) for part in parts] == [[job_id]] * len(parts)


def test_case_and_dashes_do_not_matter(svc: JobService) -> None:
    job_id = svc.enqueue("mail")

    assert svc.match(job_id.upper()) == [job_id]
    assert svc.match(job_id[5:20]) == [job_id]
    assert svc.match("-".join(without_dashes(job_id))) == [job_id]


def test_ends_tell_the_jobs_of_one_batch_apart(svc: JobService) -> None:
    many = svc.enqueue_many("mail", range(300))

    assert [svc.match(job_id[-10:]) for job_id in many] == [[job_id] for job_id in many]
    assert svc.match(many[0][:30], limit=1000) == many


def test_an_ambiguous_part_gives_as_many_as_asked_for(svc: JobService) -> None:
    many = svc.enqueue_many("mail", range(10))

    assert svc.match(many[0][:13]) == many[:2]
    assert svc.match(many[0][:3], limit=6) == many[:6]
    assert svc.match("-" + many[0][:3] + "-", limit=100) == many


def test_what_no_id_has_finds_nothing(svc: JobService) -> None:
    assert svc.match("7") == []
    svc.enqueue("mail")

    assert svc.match("f" * 32) == []
    assert svc.match("f" * 20) == []
    assert svc.match("0" * 12) == []


def test_a_part_does_not_reach_over_into_the_next_id(svc: JobService) -> None:
    first, second = svc.enqueue_many("mail", range(2))

    assert svc.match(without_dashes(first)[-6:] + without_dashes(second)[:6]) == []


def test_long_leading_digits_stand_for_the_ids_that_begin_with_them(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [svc.enqueue("mail") for _ in range(3)]
    head = without_dashes(many[0])[:12]

    monkeypatch.setattr(matching, "_anywhere", None)  # would be called, and fail
    assert svc.match(head) == many[:2]
    assert svc.match(head, limit=5) == many


def test_a_search_goes_over_all_pages(svc: JobService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "PAGE", 7)
    many = svc.enqueue_many("mail", range(50))

    assert svc.match(many[0][9:20], limit=1000) == many
    assert svc.match(many[0][9:20], limit=9) == many[:9]
    assert [svc.match(job_id[-5:]) for job_id in many] == [[job_id] for job_id in many]


def test_the_smallest_id_is_found_too() -> None:
    class OneJob:
        def ids(self, after: bytes | None, limit: int) -> list[bytes]:
            return [bytes(16)][:limit] if after is None else []

    store: Any = OneJob()
    assert matching.matching(store, "0" * 8, 2) == [ids.to_text(bytes(16))]


@pytest.mark.parametrize(
    "part", ["", "-", "xyz", "12 34", "0" * 33, "\uff10\uff11", None, 7, b"12"]
)
def test_what_can_be_no_part_of_an_id_is_refused(svc: JobService, part: Any) -> None:
    with pytest.raises(InvalidValue, match=r"is no part of a job id"):
        svc.match(part)


@pytest.mark.parametrize("limit", [0, -1, 10_001, 1.5, True])
def test_limits_are_checked(svc: JobService, limit: Any) -> None:
    with pytest.raises(InvalidValue, match="limit is"):
        svc.match("12", limit=limit)
