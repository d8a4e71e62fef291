"""The verbs on topics and on what limits them: settings, pause, drain, groups, unique keys."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Unpack, cast, overload

from jobq.errors import JobNotFound
from jobq.job import UniqueKey
from jobq.options import integer, several, text
from jobq.repo.base import Stats
from jobq.service.asynchronous import Twins
from jobq.service.patience import Patience
from jobq.states import Outcome
from jobq.topic import (
    GroupStats,
    SettingArgs,
    TopicLimits,
    TopicSettings,
    check_name,
    check_settings,
    check_store_settings,
)

if TYPE_CHECKING:
    from jobq.service.service import JobService

MOST_LISTED: Final = 10_000


class TopicVerbs:
    """The verbs of `JobService` on topics. None stands for the store as a whole."""

    # What is known.

    def topics(self) -> list[str]:
        """The names of all topics, sorted.

        One that has had neither jobs nor settings for an hour is not listed any more.
        """
        return self._itself.store.topics()

    def stats(self, topic: str | None = None) -> Stats:
        """How many jobs are in each state, by topic; without scanning.

        Of one topic, or of all that `topics` lists. One that does not exist counts nothing.
        """
        return self._itself.store.stats(_name(topic))

    # Settings.

    def configure(self, topic: str | None, **settings: Unpack[SettingArgs]) -> TopicSettings:
        """Change settings of a topic, or of the store as a whole, and give all that it has then.

        Those given change, None unsets one, the others stay. They are kept in the store, and hold
        for all processes at once: who waits for jobs, or for room, is woken when that may be over.
        How long jobs are kept is decided when they finish. A topic that has settings is there,
        with or without jobs.

        Args:
            topic: The topic's name; it need not exist yet. None for the store as a whole, which
                has `paused`, `draining`, `max_jobs` and `max_bytes`; they hold beside those of its
                topics.
            **settings: See `TopicSettings`.

        Raises:
            InvalidValue: No setting is given, or one is unknown, wrong, or not the store's; or
                they do not go together with the others.
        """
        check = check_store_settings if topic is None else check_settings
        return self._itself.store.configure(_name(topic), check(settings))

    def settings(self, topic: str | None) -> TopicSettings:
        """The settings of a topic, or of the store as a whole.

        All unset if it has none, or does not exist.

        Raises:
            InvalidValue: It is no name of a topic.
        """
        return self._itself.store.settings(_name(topic))

    def pause(self, topic: str | None = None) -> None:
        """Hand out no more jobs of a topic, or of any, until `resume`. What is reserved goes on.

        New jobs still come in. It is the setting `paused`, and holds for all processes.

        Raises:
            InvalidValue: It is no name of a topic.
        """
        self._itself.store.configure(_name(topic), {"paused": True})

    def resume(self, topic: str | None = None) -> None:
        """Hand out and take in jobs of a topic again, after `pause` and `drain`.

        Without a topic it takes back what was said of the store as a whole; topics that were
        paused by name stay so.

        Raises:
            InvalidValue: It is no name of a topic.
        """
        self._itself.store.configure(_name(topic), {"paused": None, "draining": None})

    def drain(self, topic: str | None = None, timeout: float | None = None) -> bool:
        """Take no more jobs in, and wait until those that are there are done or canceled.

        New jobs are refused with `QueueFull`, by the setting `draining`, until `resume`; whatever
        this call comes to, it stays set. Jobs that wait are served as ever: delayed ones when they
        are due, none as long as it is paused.

        Args:
            topic: The topic; None for the store as a whole.
            timeout: Seconds to wait: 0 only looks, None waits until `stop`.

        Returns:
            Whether nothing unfinished is left; False after the timeout or `stop`.

        Raises:
            InvalidValue: An argument is wrong; nothing has changed.
        """
        service, name = self._itself, _name(topic)
        store, limit = service.store, service._timeout(timeout)
        store.configure(name, {"draining": True})
        patience = None
        while store.unfinished(name):
            if patience is None:
                patience = Patience(service._holding, lambda: store.emptied(name), limit)
            if not patience.again():
                return False
        return True

    # Limits.

    def limits(self, topic: str | None) -> TopicLimits:
        """What limits a topic, or the store as a whole, and how near it is to that.

        Raises:
            InvalidValue: It is no name of a topic.
        """
        return self._itself.store.limits(_name(topic))

    def release_limits(self, topic: str) -> int:
        """End what the holders of a topic's canceled jobs still take up, and begin its rate anew.

        A job that is canceled while somebody holds it goes on counting as running until its holder
        calls, the lease is over, or the process is dead. This is for an operator who knows better.

        Returns:
            How many such holds have ended.

        Raises:
            InvalidValue: It is no name of a topic.
        """
        return self._itself.store.release_limits(check_name(topic))

    def groups(self, topic: str, *, after: str | None = None, limit: int = 100) -> list[GroupStats]:
        """The first *limit* groups of a topic that have jobs ready or running, by name.

        Those too whose rate lets nothing go yet. A group is forgotten when it has none of these.

        Args:
            topic: The topic.
            after: Only groups beyond this one, by UTF-8 bytes: the last of the page before.
            limit: 1 to 10 000.

        Raises:
            InvalidValue: An argument is wrong.
        """
        name, beyond, most = check_name(topic), _text("after", after), _limit(limit)
        return self._itself.store.groups(name, beyond, most)

    @overload
    def release_groups(self, topic: str, groups: str) -> None: ...  # type: ignore[overload-overlap] # a str is one group
    @overload
    def release_groups(self, topic: str, groups: Iterable[str]) -> list[Outcome]: ...
    def release_groups(self, topic: str, groups: str | Iterable[str]) -> list[Outcome] | None:
        """As `release_limits`, for groups: end what lingers in them, and begin their rates anew.

        One group: raises if it is not there. Several: gives outcomes by position, `ok` or
        `missing`.

        Raises:
            JobNotFound: One group was given, and it has no jobs ready or running.
            InvalidValue: An argument is wrong.
        """
        name = check_name(topic)
        return _one_or_many(
            "group",
            groups,
            lambda names: self._itself.store.release_groups(name, names),
            lambda group: JobNotFound(f"topic {name!r} has no job ready or running of {group!r}"),
        )

    # Unique keys.

    def keys(self, *, after: str | None = None, limit: int = 100) -> list[UniqueKey]:
        """The first *limit* unique keys that are taken, by key.

        Args:
            after: Only keys beyond this one, by UTF-8 bytes: the last of the page before.
            limit: 1 to 10 000.

        Raises:
            InvalidValue: An argument is wrong.
        """
        return self._itself.store.keys(_text("after", after), _limit(limit))

    @overload
    def release_keys(self, keys: str) -> None: ...  # type: ignore[overload-overlap] # a str is one key
    @overload
    def release_keys(self, keys: Iterable[str]) -> list[Outcome]: ...
    def release_keys(self, keys: str | Iterable[str]) -> list[Outcome] | None:
        """Let nobody have these unique keys: the next job that wants one gets it.

        The jobs that had them go on without. One key: raises if nobody has it. Several: gives
        outcomes by position, `ok` or `missing`.

        Raises:
            JobNotFound: One key was given, and nobody has it.
            InvalidValue: A key is no text, or too long.
        """
        return _one_or_many("key", keys, self._itself.store.release_keys, no_key)

    @property
    def _itself(self) -> "JobService":
        return cast("JobService", self)


class AsyncTopicVerbs(Twins):
    """The same verbs for coroutines."""

    async def atopics(self) -> list[str]:
        """`topics` for coroutines: the names of all topics, sorted."""
        return await self._bridge.call(self._service.topics)

    async def astats(self, topic: str | None = None) -> Stats:
        """`stats` for coroutines: how many jobs are in each state, by topic."""
        return await self._bridge.call(lambda: self._service.stats(topic))

    async def aconfigure(self, topic: str | None, **settings: Unpack[SettingArgs]) -> TopicSettings:
        """`configure` for coroutines: change settings of a topic, and give all that it has."""
        return await self._bridge.call(lambda: self._service.configure(topic, **settings))

    async def asettings(self, topic: str | None) -> TopicSettings:
        """`settings` for coroutines: the settings of a topic, or of the store."""
        return await self._bridge.call(lambda: self._service.settings(topic))

    async def apause(self, topic: str | None = None) -> None:
        """`pause` for coroutines: hand out no more jobs of a topic, or of any."""
        await self._bridge.call(lambda: self._service.pause(topic))

    async def aresume(self, topic: str | None = None) -> None:
        """`resume` for coroutines: hand out and take in jobs of a topic again."""
        await self._bridge.call(lambda: self._service.resume(topic))

    async def adrain(
        self,
        topic: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as for `drain`: it ends with False
    ) -> bool:
        """`drain` for coroutines: take no more jobs in, and wait until none is unfinished."""
        service, bridge, name = self._service, self._bridge, _name(topic)
        store, limit = service.store, service._timeout(timeout)
        await bridge.call(lambda: store.configure(name, {"draining": True}))
        async with bridge.patience(lambda: store.emptied(name), limit) as patience:
            while await bridge.call(lambda: store.unfinished(name)):
                if not await patience.again():
                    return False
        return True

    async def alimits(self, topic: str | None) -> TopicLimits:
        """`limits` for coroutines: what limits a topic, and how near it is to that."""
        return await self._bridge.call(lambda: self._service.limits(topic))

    async def arelease_limits(self, topic: str) -> int:
        """`release_limits` for coroutines: end what lingers in a topic, begin its rate anew."""
        return await self._bridge.call(lambda: self._service.release_limits(topic))

    async def agroups(
        self, topic: str, *, after: str | None = None, limit: int = 100
    ) -> list[GroupStats]:
        """`groups` for coroutines: the first *limit* groups of a topic, by name."""
        return await self._bridge.call(
            lambda: self._service.groups(topic, after=after, limit=limit)
        )

    @overload
    async def arelease_groups(self, topic: str, groups: str) -> None: ...  # type: ignore[overload-overlap] # a str is one group
    @overload
    async def arelease_groups(self, topic: str, groups: Iterable[str]) -> list[Outcome]: ...
    async def arelease_groups(
        self, topic: str, groups: str | Iterable[str]
    ) -> list[Outcome] | None:
        """`release_groups` for coroutines: one group raises, several give outcomes."""
        given: Any = groups if isinstance(groups, str) else several("groups", groups, "names")
        return await self._bridge.call(lambda: self._service.release_groups(topic, given))

    async def akeys(self, *, after: str | None = None, limit: int = 100) -> list[UniqueKey]:
        """`keys` for coroutines: the first *limit* unique keys that are taken."""
        return await self._bridge.call(lambda: self._service.keys(after=after, limit=limit))

    @overload
    async def arelease_keys(self, keys: str) -> None: ...  # type: ignore[overload-overlap] # a str is one key
    @overload
    async def arelease_keys(self, keys: Iterable[str]) -> list[Outcome]: ...
    async def arelease_keys(self, keys: str | Iterable[str]) -> list[Outcome] | None:
        """`release_keys` for coroutines: one key raises, several give outcomes."""
        given: Any = keys if isinstance(keys, str) else several("keys", keys, "texts")
        return await self._bridge.call(lambda: self._service.release_keys(given))


def no_key(key: str) -> JobNotFound:
    """The error for a unique key that nobody has."""
    return JobNotFound(f"no job has the unique key {key!r}")


def _one_or_many(
    what: str,
    names: str | Iterable[str],
    verb: Callable[[list[str]], list[Outcome]],
    missing: Callable[[str], JobNotFound],
) -> list[Outcome] | None:
    """One name raises, several give outcomes."""
    if isinstance(names, str):
        (outcome,) = verb([text(what, names)])
        if outcome is Outcome.MISSING:
            raise missing(names)
        return None
    given = [text(what, name) for name in several(f"{what}s", names, "texts")]
    return verb(given) if given else []


def _name(topic: str | None) -> str | None:
    return None if topic is None else check_name(topic)


def _text(name: str, value: str | None) -> str | None:
    return None if value is None else text(name, value)


def _limit(limit: int) -> int:
    return integer("limit", limit, 1, MOST_LISTED)
