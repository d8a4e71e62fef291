"""So many jobs in so much time: the generic cell rate algorithm, on whole nanoseconds.

A limit of n jobs in a period, with a burst b, is kept as one number: the *theoretical arrival time*
(TAT), at which the next job would come if all came evenly. Each job moves it on by the interval T =
period / n, from now if it lies behind. A job may go as long as the TAT is then no more than b
intervals ahead. It is a token bucket of b tokens that fills by one each T, without a clock tick or
a second number. Source: ITU-T I.371, annex A; the form with one number is that of virtual
scheduling.

A clock that has begun anew, as that of a boot does, may find a TAT farther ahead than a burst,
which no job can have brought about: it counts as none. So after any jump of the clock a limit is
wrong by one burst at most, and for no longer than one takes.
"""

import math
from typing import NamedTuple

from jobq.topic import Rate


class Limit(NamedTuple):
    """A rate and its burst.

    Attributes:
        interval_ns: Nanoseconds between two jobs, rounded up: never more jobs than asked for.
        burst: How many may go at once after a quiet time; at least 1.
    """

    interval_ns: int
    burst: int

    @classmethod
    def of(cls, rate: Rate, burst: int | None) -> "Limit":
        """The limit that settings say.

        >>> Limit.of((10, 1.0), None)
        Limit(interval_ns=100000000, burst=10)
        """
        jobs, period = rate
        return cls(max(1, math.ceil(period * 1_000_000_000 / jobs)), burst or jobs)

    def _tat(self, tat_ns: int, now_ns: int) -> int:
        return now_ns if tat_ns > self.latest(now_ns) else max(tat_ns, now_ns)

    def latest(self, now_ns: int) -> int:
        """The latest TAT that can be: as if a whole burst had gone just now.

        >>> Limit(100, 3).latest(1000)
        1300
        """
        return now_ns + self.burst * self.interval_ns

    def allowed(self, tat_ns: int, now_ns: int) -> int:
        """How many jobs may go now, 0 to the burst.

        >>> Limit(100, 3).allowed(0, 1000), Limit(100, 3).allowed(1150, 1000)
        (3, 1)
        """
        ahead = self._tat(tat_ns, now_ns) - now_ns
        return (self.burst * self.interval_ns - ahead) // self.interval_ns

    def after(self, tat_ns: int, now_ns: int, jobs: int) -> int:
        """The TAT after *jobs* have gone now.

        >>> Limit(100, 3).after(0, 1000, 2)
        1200
        """
        return self._tat(tat_ns, now_ns) + jobs * self.interval_ns

    def next_ns(self, tat_ns: int, now_ns: int) -> int:
        """When the next job may go: now, or later.

        >>> Limit(100, 3).next_ns(1250, 1000), Limit(100, 3).next_ns(1200, 1000)
        (1050, 1000)
        """
        tat_ns = self._tat(tat_ns, now_ns)
        return max(now_ns, tat_ns - (self.burst - 1) * self.interval_ns)
