"""Stride scheduling against the simple model: one job after the other, the smallest pass first."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobq.shares import LEAST_SHARE, MOST_SHARE
from jobq.stride import FIRST, picks, share_out, started, stride_of

SHARES = st.floats(LEAST_SHARE, MOST_SHARE) | st.integers(1, 9).map(float)


class Topics:
    """Topics of a store, and calls that name all of them."""

    def __init__(self, shares: list[float], jobs: list[int]) -> None:
        self.strides = [stride_of(share) for share in shares]
        self.passes = [0] * len(shares)
        self.jobs = list(jobs)

    def reserve(self, n: int, most: list[int] | None = None) -> list[int]:
        """Take up to *n* jobs in one call; *most* says how many each topic gives at most."""
        with_jobs = [topic for topic, jobs in enumerate(self.jobs) if jobs]
        passes = started(
            [self.passes[topic] for topic in with_jobs],
            [self.strides[topic] for topic in with_jobs],
        )
        left = list(most or self.jobs)

        def give(turns: Mapping[int, int]) -> dict[int, int]:
            got = {place: min(wanted, left[with_jobs[place]]) for place, wanted in turns.items()}
            for place, jobs in got.items():
                left[with_jobs[place]] -= jobs
            return got

        order = share_out(
            passes,
            [self.strides[topic] for topic in with_jobs],
            [self.jobs[topic] for topic in with_jobs],
            n,
            give,
        )
        for place, at in enumerate(passes):
            topic = with_jobs[place]
            turns = order.count(place)
            if turns or (order and not self.passes[topic]):
                self.passes[topic] = at + turns * self.strides[topic]
            self.jobs[topic] -= turns
        return [with_jobs[place] for place in order]


@given(
    st.lists(st.tuples(SHARES, st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6),
    st.integers(1, 120),
)
def test_a_batch_is_as_many_jobs_one_after_the_other(
    topics: list[tuple[float, int, int]], n: int
) -> None:
    """Also where topics give fewer jobs than they have: their turns go to the others."""
    shares, jobs, most = ([*them] for them in zip(*topics, strict=True))
    strides = [stride_of(share) for share in shares]
    passes = [FIRST] * len(topics)
    left = [min(both) for both in zip(jobs, most, strict=True)]
    expected: list[int] = []
    while len(expected) < n and any(left):
        topic = min((at, topic) for topic, at in enumerate(passes) if left[topic])[1]
        expected.append(topic)
        passes[topic] += strides[topic]
        left[topic] -= 1
    both = Topics(shares, jobs)

    assert both.reserve(n, most) == expected
    if all(jobs) and expected:
        assert both.passes == passes


@given(
    st.lists(SHARES, min_size=2, max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_calls_of_any_sizes_give_the_same_order(shares: list[float], sizes: list[int]) -> None:
    jobs = [10_000] * len(shares)
    in_calls, at_once = Topics(shares, jobs), Topics(shares, jobs)
    given = [topic for n in sizes for topic in in_calls.reserve(n)]

    assert given == at_once.reserve(sum(sizes))
    assert in_calls.passes == at_once.passes


@pytest.mark.parametrize("shares", [(5, 1), (1, 1), (1000, 1), (3, 2, 7), (100, 0.5), (0.01, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_shares_are_kept_within_one_percent_in_any_mix_of_batch_sizes(
    shares: tuple[float, ...], seed: int
) -> None:
    sizes = random.Random(seed)
    topics = Topics(list(shares), [10**6] * len(shares))
    given: Counter[int] = Counter()
    while given.total() < 10_000:
        given.update(topics.reserve(sizes.choice([1, 1, 2, 7, 100, 1000])))
    total = given.total()
    for topic, share in enumerate(shares):
        right = total * share / sum(shares)

        assert abs(given[topic] - right) < max(0.01 * right, 1.01)


@given(st.lists(SHARES, min_size=2, max_size=5), st.integers(1, 2000), st.data())
def test_a_topic_that_was_empty_makes_up_for_no_more_than_one_turn(
    shares: list[float], turns: int, data: st.DataObject
) -> None:
    """As long as another one has one turn, it has at most those of its share, and one more."""
    topics = Topics(shares, [0] + [10**7] * (len(shares) - 1))
    if data.draw(st.booleans()):  # it has taken part before
        topics.jobs[0] = 3
    topics.reserve(turns)
    topics.jobs[0] = 10**7
    order = topics.reserve(3000)
    other = data.draw(st.integers(1, len(shares) - 1))
    before = order.index(other) if other in order else len(order)
    mine = order[:before].count(0)

    assert mine <= 2 * (shares[0] / shares[other] * 1.01) + 2


def test_a_new_topic_starts_at_the_smallest_pass() -> None:
    assert started([5000, 0, 4000, 0], [10_000] * 4) == [5000, 4000, 4000, 4000]
    assert started([0, 0, 0], [1, 2, 3]) == [FIRST] * 3


def test_a_topic_that_always_has_just_one_job_does_not_keep_others_from_theirs() -> None:
    topics = Topics([1, 1], [1, 1000])
    given = []
    for _ in range(100):
        topics.jobs[0] = 1
        given += topics.reserve(1)

    assert given.count(0) == given.count(1) == 50


def test_new_topics_get_their_turns_one_after_the_other() -> None:
    topics = Topics([1] * 5, [10] * 5)

    assert [topics.reserve(1) for _ in range(6)] == [[0], [1], [2], [3], [4], [0]]


def test_picks_end_with_the_jobs() -> None:
    assert picks([1, 1], [10, 10], [0, 0], 5) == []
    assert picks([], [], [], 5) == []
    assert picks([1, 1], [10, 10], [0, 3], 5) == [1, 1, 1]
    assert picks([1, 1], [10, 10], [9, 9], 0) == []
