"""From what callers say to what stores take: checked and encoded before anything is written."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from jobq import codec
from jobq.errors import InvalidValue
from jobq.job import KEEP, LEAST_WEIGHT, MOST_WEIGHT, Change, JobSpec
from jobq.options import UNSET, JobOptions, integer, seconds, seconds_in
from jobq.topic import check_name

Delay = float | timedelta


def delay_us(delay: Delay | None, name: str = "delay") -> int:
    """A delay in microseconds; None is none. What is more than nothing is at least one.

    >>> delay_us(0.25), delay_us(timedelta(seconds=1)), delay_us(None), delay_us(1e-9)
    (250000, 1000000, 0, 1)

    Raises:
        InvalidValue: It is not a number of seconds or a timedelta, negative, NaN, infinite, or
            longer than `LONGEST_S`.
    """
    if delay is None:
        return 0
    return math.ceil(seconds(name, seconds_in(delay)) * 1_000_000)


def check_weight(weight: object) -> int:
    """A weight, checked.

    Raises:
        InvalidValue: It is not an int, or not within int16.
    """
    if type(weight) is int and LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        return weight
    return integer("weight", weight, LEAST_WEIGHT, MOST_WEIGHT)


def ends_of(deadline: datetime | None, ttl: float | None) -> JobOptions:
    """When jobs that are reset are canceled as expired; the service's defaults have no part in it.

    Raises:
        InvalidValue: One of them is wrong, as for `enqueue`.
    """
    if deadline is None and ttl is None:
        return UNSET
    return JobOptions.of({"deadline": deadline, "ttl": ttl})


class SpecMaker:
    """Makes specs with the defaults of one service.

    Args:
        defaults: What holds for jobs that do not say otherwise.
        limit: The most bytes of an encoded payload or result.
    """

    def __init__(self, defaults: JobOptions, limit: int) -> None:
        self.defaults = defaults
        self.limit = limit

    def options(self, args: Mapping[str, Any]) -> JobOptions:
        """The caller's options over the service's.

        Raises:
            InvalidValue: An option is unknown or wrong.
        """
        return JobOptions.of(args).over(self.defaults) if args else self.defaults

    def one(
        self,
        topic: str,
        payload: Any,
        weight: int,
        delay: Delay | None,
        args: Mapping[str, Any],
    ) -> JobSpec:
        """One job.

        Raises:
            InvalidValue: An argument is wrong.
            PayloadTooLarge: The payload is larger than the limit.
        """
        return JobSpec(
            check_name(topic),
            check_weight(weight),
            delay_us(delay),
            codec.pack(payload, limit=self.limit),
            self.options(args),
        )

    def many(
        self,
        topic: str,
        payloads: Iterable[Any],
        weight: int,
        wait_us: int,
        options: JobOptions,
    ) -> list[JobSpec]:
        """A job for each payload; all else is the same, and checked already.

        Raises:
            InvalidValue: A payload cannot be stored; the message gives its position.
            PayloadTooLarge: A payload is larger than the limit; likewise.
        """
        pack, new = codec.packer(self.limit), tuple.__new__
        specs: list[JobSpec] = []
        try:
            for payload in payloads:
                spec = (topic, weight, wait_us, pack(payload), options)
                specs.append(new(JobSpec, spec))  # what JobSpec(…) comes down to, in half the time
        except InvalidValue as error:
            raise type(error)(f"payload {len(specs)}: {error}") from error
        return specs

    def change(
        self,
        topic: str | None,
        weight: int | None,
        delay: Delay | None,
        payload: Any,
        args: Mapping[str, Any],
    ) -> Change:
        """What is to be changed of jobs; the service's defaults have no part in it.

        Raises:
            InvalidValue: An argument is wrong, or there is nothing to change.
            PayloadTooLarge: The payload is larger than the limit.
        """
        options = JobOptions.of(args)
        change = Change(
            None if topic is None else check_name(topic),
            None if weight is None else check_weight(weight),
            None if delay is None else delay_us(delay),
            None if payload is KEEP else codec.pack(payload, limit=self.limit),
            {name: getattr(options, name) for name in args},
        )
        if change == Change():
            raise InvalidValue(
                "there is nothing to change: expected at least one of topic, weight, delay, "
                "payload and the options of jobs"
            )
        return change

    def result(self, value: Any) -> bytes | None:
        """A result, encoded; None needs no keeping.

        Raises:
            InvalidValue: It cannot be stored.
            PayloadTooLarge: It is larger than the limit.
        """
        return None if value is None else codec.pack(value, limit=self.limit)
