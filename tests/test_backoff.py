import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobq.backoff import wait_before_retry
from jobq.errors import InvalidValue


def wait(
    k: int,
    *,
    min_backoff: float = 1.0,
    max_backoff: float = 3600.0,
    factor: float = 2.0,
    jitter: float = 0.0,
    random: float = 0.5,
) -> float:
    return wait_before_retry(
        k,
        min_backoff=min_backoff,
        max_backoff=max_backoff,
        factor=factor,
        jitter=jitter,
        random=random,
    )


seconds = st.floats(0, 1e9)
factors = st.floats(1, 1000)
retries = st.integers(1, 2**40)
fractions = st.floats(0, 1)
randoms = st.floats(0, 1, exclude_max=True)


def test_the_wait_doubles_from_retry_to_retry() -> None:
    assert [wait(k) for k in range(1, 7)] == [1, 2, 4, 8, 16, 32]


def test_the_wait_reaches_the_cap_and_stays_there() -> None:
    waits = [wait(k, max_backoff=10.0) for k in (3, 4, 5, 63, 64, 65, 1024, 1025, 10**9)]

    assert waits == [4, 8, 10, 10, 10, 10, 10, 10, 10]


@pytest.mark.parametrize("k", [10**6, 2**31, 2**63, 10**400])
@pytest.mark.parametrize("factor", [1.0001, 2.0, 1e308])
def test_no_retry_is_so_late_that_the_wait_overflows(k: int, factor: float) -> None:
    assert wait(k, factor=factor) == 3600.0


def test_a_factor_of_one_waits_the_same_however_late_the_retry() -> None:
    assert [wait(k, factor=1.0) for k in (1, 2, 10**6, 10**400)] == [1.0] * 4


def test_a_wait_of_nothing_never_grows() -> None:
    assert [wait(k, min_backoff=0.0) for k in (1, 2, 2000, 10**400)] == [0.0] * 4


def test_waits_below_a_second_are_kept() -> None:
    assert wait(2, min_backoff=0.05) == 0.1


def test_a_first_wait_past_the_cap_is_cut_to_it() -> None:
    assert wait(1, min_backoff=50.0, max_backoff=5.0) == 5.0


def test_the_jitter_goes_by_a_fraction_up_and_down() -> None:
    waits = [wait(5, jitter=0.25, random=random) for random in (0.0, 0.5, 0.75)]

    assert waits == [12.0, 16.0, 18.0]


def test_jobs_that_wait_at_the_cap_are_spread_too() -> None:
    waits = {wait(50, max_backoff=10.0, jitter=0.1, random=random) for random in (0, 0.25, 0.75)}

    assert len(waits) == 3


@given(retries, seconds, seconds, factors, fractions, randoms)
def test_a_wait_is_never_negative_and_at_most_the_jitter_past_the_cap(
    k: int, low: float, cap: float, factor: float, jitter: float, random: float
) -> None:
    found = wait(k, min_backoff=low, max_backoff=cap, factor=factor, jitter=jitter, random=random)

    assert 0 <= found <= cap * (1 + jitter)


@given(st.integers(1, 2000), seconds, seconds, st.floats(1.001, 1000))
def test_a_later_retry_never_waits_less(k: int, low: float, cap: float, factor: float) -> None:
    waits = [wait(n, min_backoff=low, max_backoff=cap, factor=factor) for n in (k, k + 1)]

    assert waits == sorted(waits)


@given(st.floats(1, 100), randoms)
def test_a_jitter_past_one_does_not_make_a_wait_negative(jitter: float, random: float) -> None:
    assert wait(3, jitter=jitter, random=random) >= 0


@pytest.mark.parametrize("k", [0, -1])
def test_there_is_no_wait_before_the_first_attempt(k: int) -> None:
    with pytest.raises(InvalidValue, match=f"k is {k}"):
        wait(k)
