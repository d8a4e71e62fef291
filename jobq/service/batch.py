"""Several jobs in one commit: the batch, and the job that follows another."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from jobq import ids
from jobq.errors import InvalidValue, shown
from jobq.job import JobSpec
from jobq.options import OptionArgs
from jobq.service.specs import Delay, SpecMaker

if TYPE_CHECKING:
    from jobq.service.holding import Holding


class NewJob:
    """A job to be enqueued later: as the follow-up of another, see `Job.done`.

    Takes what `JobService.enqueue` takes. It is checked when it is used.
    """

    __slots__ = ("delay", "options", "payload", "topic", "weight")

    def __init__(
        self,
        topic: str,
        payload: Any = None,
        *,
        weight: int = 0,
        delay: Delay | None = None,
        **options: Unpack[OptionArgs],
    ) -> None:
        self.topic: str = topic
        self.payload: Any = payload
        self.weight: int = weight
        self.delay: Delay | None = delay
        self.options: OptionArgs = options

    def __repr__(self) -> str:
        return f"NewJob({self.topic!r}, {self.payload!r})"

    def spec(self, maker: SpecMaker) -> JobSpec:
        """The job, checked and encoded.

        Raises:
            InvalidValue: An argument is wrong.
        """
        if not isinstance(self, NewJob):
            raise InvalidValue(f"then has {shown(self)}: expected jobq.NewJob(topic, payload, …)")
        return maker.one(self.topic, self.payload, self.weight, self.delay, self.options)


class Gathering:
    """Jobs of any topics that are to be enqueued in one commit.

    Attributes:
        ids: After the block: the ids, in the order of the calls.
    """

    def __init__(self, maker: SpecMaker, block: str) -> None:
        self._maker = maker
        self._block = block
        self._specs: list[JobSpec] = []
        self._begun = False
        self._ended = False
        self.ids: list[str] = []

    def __len__(self) -> int:
        return len(self._specs)

    def enqueue(
        self,
        topic: str,
        payload: Any = None,
        *,
        weight: int = 0,
        delay: Delay | None = None,
        **options: Unpack[OptionArgs],
    ) -> None:
        """Add a job to the batch; arguments as for `JobService.enqueue`.

        Raises:
            InvalidValue: An argument is wrong, or the block has not begun, or has ended.
        """
        self._check_open()
        if not self._begun:
            raise InvalidValue(f"this batch has not begun: expected `{self._block}`")
        self._specs.append(self._maker.one(topic, payload, weight, delay, options))

    def _begin(self) -> None:
        self._check_open()
        self._begun = True

    def _check_open(self) -> None:
        if self._ended:
            raise InvalidValue("this batch has ended: begin another with svc.batch()")


class Batch(Gathering):
    """Jobs of any topics that are enqueued in one commit when the `with` block ends.

    All of them or none: an exception in the block, or one in the commit, leaves nothing behind.

    Attributes:
        ids: After the block: the ids, in the order of the calls.
    """

    def __init__(self, holding: "Holding", seconds: float | None) -> None:
        super().__init__(holding.maker, "with svc.batch() as batch:")
        self._holding = holding
        self._seconds = seconds

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if kind is None and self._specs:
            added = self._holding.enqueue(self._specs, self._seconds)
            self.ids: list[str] = [ids.to_text(raw) for raw in added]
