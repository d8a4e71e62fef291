"""How long a failed job waits before it is tried again."""

from jobq.errors import InvalidValue

_MOST_STEPS = 2**53  # floats are exact up to here; with an int past their range `**` would raise


def wait_before_retry(
    k: int,
    *,
    min_backoff: float,
    max_backoff: float,
    factor: float,
    jitter: float,
    random: float,
) -> float:
    """Seconds to wait before retry *k*: growing by *factor* up to the cap, then varied.

    >>> rule = {"min_backoff": 1.0, "max_backoff": 60.0, "factor": 2.0, "jitter": 0.1}
    >>> [wait_before_retry(k, **rule, random=0.5) for k in (1, 2, 3, 7, 1_000_000)]
    [1.0, 2.0, 4.0, 60.0, 60.0]
    >>> wait_before_retry(3, **rule, random=0.0), wait_before_retry(3, **rule, random=0.75)
    (3.6, 4.2)

    However large *k* and *factor* are, the wait stays at the cap. The jitter comes after the cap,
    so that jobs which failed together do not come back together: a wait lies between
    `1 - jitter` and `1 + jitter` times the capped one, and is never negative.

    Args:
        k: Which retry this is; 1 is the first.
        min_backoff: Seconds before the first retry, before the jitter; 0 or more.
        max_backoff: The cap in seconds.
        factor: By what the wait grows from retry to retry; 0 or more.
        jitter: The fraction by which a wait varies up and down; 0 or more.
        random: A number in [0, 1) that places the wait in that range; 0.5 is its middle.

    Raises:
        InvalidValue: *k* is less than 1.
    """
    if k < 1:
        raise InvalidValue(f"k is {k}: expected 1 for the first retry, or more")
    try:
        wait = min_backoff * float(factor) ** min(k - 1, _MOST_STEPS)
    except OverflowError:  # past 1e308, and so past any cap: unless there is nothing to grow
        wait = max_backoff if min_backoff else 0.0
    return max(0.0, min(max_backoff, wait) * (1.0 + jitter * (2.0 * random - 1.0)))
