import math
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from jobq.errors import InvalidValue, JobqError
from jobq.options import (
    DEFAULTS,
    LONGEST_S,
    MOST_COUNT,
    UNSET,
    JobOptions,
    integer,
    seconds,
    text,
)

NAN = float("nan")
HUGE = 10**5000  # past what Python writes out in decimal

DURATIONS = ("lease", "min_backoff", "max_backoff", "retention")
COUNTS = ("max_retries", "max_crashes")
RATIOS = ("factor", "jitter")

NO_NUMBER: list[Any] = ["5", b"5", [5], {}, 1j, object(), True, False]
NO_SECONDS: list[Any] = [
    *NO_NUMBER,
    -1,
    -0.001,
    NAN,
    math.inf,
    -math.inf,
    LONGEST_S * 1.01,
    HUGE,
    -HUGE,
]
NO_COUNT: list[Any] = [*NO_NUMBER, -1, 1.0, 0.5, NAN, math.inf, MOST_COUNT + 1, 2**64, HUGE]
NO_TEXT: list[Any] = ["", "é" * 128, "a" * 256, "\ud800", "a\udfff", 5, b"a", [], True]

BAD = [
    *((name, value) for name in DURATIONS for value in NO_SECONDS),
    *((name, value) for name in COUNTS for value in NO_COUNT),
    *((name, value) for name in RATIOS for value in [*NO_NUMBER, -0.1, NAN, math.inf, HUGE]),
    ("lease", 0),
    ("lease", -0.0),
    ("factor", 0.999),
    ("factor", 1001),
    ("jitter", 1.001),
    *(("name", value) for value in NO_TEXT),
    *(("tags", [value]) for value in NO_TEXT),
    *(("tags", value) for value in ["a", b"a", 5, {"a": 1}, iter("a"), ["a"] * 33, object()]),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: f"{type(value).__name__}")
def test_a_bad_value_of_an_option_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        JobOptions.of({name: value})

    assert isinstance(caught.value, JobqError)
    assert isinstance(caught.value, ValueError)
    assert (
        "a tag" if name == "tags" and isinstance(value, list) and len(value) == 1 else name
    ) in (str(caught.value))
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 500


GOOD: list[tuple[str, Any, Any]] = [
    ("lease", 1, 1.0),
    ("lease", 0.001, 0.001),
    ("lease", LONGEST_S, LONGEST_S),
    ("max_retries", 0, 0),
    ("max_retries", MOST_COUNT, MOST_COUNT),
    ("max_crashes", 0, 0),
    ("min_backoff", 0, 0.0),
    ("max_backoff", LONGEST_S, LONGEST_S),
    ("factor", 1, 1.0),
    ("factor", 1000, 1000.0),
    ("jitter", 0, 0.0),
    ("jitter", 1, 1.0),
    ("retention", 0, 0.0),
    ("name", "é" * 127, "é" * 127),
    ("name", "a\x00b", "a\x00b"),
    ("tags", [], ()),
    ("tags", ["b", "a", "b"], ("a", "b")),
    ("tags", {"a"}, ("a",)),
    ("tags", tuple("abc"), ("a", "b", "c")),
]


@pytest.mark.parametrize(("name", "value", "kept"), GOOD)
def test_a_good_value_of_an_option_is_kept(name: str, value: object, kept: object) -> None:
    options = JobOptions.of({name: value})

    assert options.as_dict() == {name: kept}
    assert type(getattr(options, name)) is type(kept)


@pytest.mark.parametrize("name", JobOptions.__dataclass_fields__)
def test_none_means_not_set(name: str) -> None:
    assert JobOptions.of({name: None}) == UNSET


@pytest.mark.parametrize("name", ["leese", "priority", "timeout", "weight", "delay", ""])
def test_an_option_that_is_not_built_is_not_accepted(name: str) -> None:
    with pytest.raises(InvalidValue, match=rf"unknown option '{name}': expected one of lease, "):
        JobOptions.of({name: 1})


def test_the_least_wait_is_not_more_than_the_longest() -> None:
    with pytest.raises(InvalidValue, match=r"min_backoff 2\.0 is more than max_backoff 1\.0"):
        JobOptions.of({"min_backoff": 2, "max_backoff": 1})

    assert JobOptions.of({"min_backoff": 1, "max_backoff": 1}).max_backoff == 1.0


def test_options_stand_over_others_one_by_one() -> None:
    job = JobOptions.of({"lease": 5, "max_retries": 0})
    service = JobOptions.of({"lease": 7, "name": "n", "jitter": 0})

    assert job.over(service).as_dict() == {
        "lease": 5.0, "max_retries": 0, "name": "n", "jitter": 0.0,
    }  # fmt: skip
    assert job.over(UNSET) is job
    assert UNSET.over(job) is job
    assert job.over(service).over(DEFAULTS).max_crashes == 5


def test_the_defaults_are_those_of_the_documents() -> None:
    assert DEFAULTS.as_dict() == {
        "lease": 600.0,
        "max_retries": 20,
        "min_backoff": 1.0,
        "max_backoff": 3600.0,
        "factor": 2.0,
        "jitter": 0.1,
        "max_crashes": 5,
        "unique_for": "unfinished",
        "on_conflict": "return",
    }


def test_options_cannot_be_changed_and_compare_by_value() -> None:
    options = JobOptions.of({"lease": 5})

    assert options == JobOptions.of({"lease": 5.0})
    assert hash(options) == hash(JobOptions(lease=5.0))
    with pytest.raises(AttributeError):
        options.lease = 6.0  # type: ignore[misc]


def test_numbers_and_texts_are_named_in_the_error() -> None:
    with pytest.raises(InvalidValue, match="timeout is 'soon': expected a number of seconds"):
        seconds("timeout", "soon")
    with pytest.raises(InvalidValue, match=r"timeout is -1: expected at least 0 seconds"):
        seconds("timeout", -1)
    with pytest.raises(InvalidValue, match=r"n is 9: expected 1 to 3"):
        integer("n", 9, 1, 3)
    with pytest.raises(InvalidValue, match=r"name is '' \(0 bytes of UTF-8\): expected 1 to 255"):
        text("name", "")


@pytest.mark.parametrize("values", [{}, {"group": "a"}, {"lease": 5.0, "name": "n", "ttl": 2.0}])
def test_options_made_of_what_is_set_are_like_any_others(values: dict[str, Any]) -> None:
    options, usual = JobOptions.from_checked(values), JobOptions(**values)

    assert options == usual == JobOptions.of(values) == pickle.loads(pickle.dumps(options))
    assert hash(options) == hash(usual)
    assert repr(options) == repr(usual)
    assert replace(options, max_retries=3) == replace(usual, max_retries=3)
    assert options.given() == usual.given() == values
    with pytest.raises(FrozenInstanceError):
        options.lease = 1.0  # type: ignore[misc]


def test_options_are_equal_if_the_same_ones_are_set() -> None:
    options = JobOptions(lease=5.0, name="n")

    assert options == JobOptions.from_checked({"name": "n", "lease": 5.0})
    assert options == JobOptions.of({"name": "n", "lease": 5, "group": None})
    assert len({options, JobOptions.of({"name": "n", "lease": 5, "group": None})}) == 1
    assert options != JobOptions(lease=5.0)
    assert options != JobOptions(lease=5.0, name="m")
    assert options != {"lease": 5.0, "name": "n"}
