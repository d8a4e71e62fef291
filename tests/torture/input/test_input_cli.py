"""Hostile arguments to the command, and hostile names and texts in the queue that it shows.

Whatever it is, the command ends with a status that is documented, without a traceback; nothing on
stdout or stderr steers the terminal; and what says that it is JSON is JSON.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import pytest
from click.testing import Result

import jobq
from jobq import cli
from jobq.cli.context import FAILED, NOT_FOUND, STORE_UNUSABLE, WRONG_COMMAND
from tests.cli.conftest import all_verbs, call
from tests.crash.conftest import Say
from tests.torture.input.mischief import TEXTS

STATUSES: Final = frozenset({0, FAILED, WRONG_COMMAND, NOT_FOUND, STORE_UNUSABLE})

NASTY: Final = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202eliam\u200f\x00\u2028 \x7f手紙"
"""What clears screens, renames windows, begins lines, hides itself, or runs from right to left."""

ARGUMENTS: Final = [text[:100_000] for text in TEXTS if not {"\0", "\ud800"} & set(text)] + [
    *(
        "--",
        "-",
        "--help\x1b",
        "-\x1b[2J",
        "\udc80\udcff",
        "5d",
        "-1",
        "1/0",
        "9" * 5000,
        "9" * 400 + "d",
    ),
    *("@/etc/passwd", "2030-01-01", "9999-12-31T23:59:59-14:00", "[" * 100_000, '{"a":' * 50_000),
    *("NaN", '"\\ud800"', "1e400", "key=value", "topic=\x1b[2J", "status=\x1b", "lease=nan"),
]
"""Words that a command line may have: no NUL, which the system ends them at, and of what is not
UTF-8 only what Python makes of it."""

GOOD: Final[dict[str, list[str]]] = {
    "topic": ["mail"],
    "names": ["mail"],
    "parts": [],
    "payload": [],
    "backup": ["backup-file"],
    "to": ["other"],
}
"""What is needed where it is not the hostile one."""

ALWAYS: Final[dict[str, list[str]]] = {
    "jobs wait": ["--timeout", "1ms"],
    "topics drain": ["--timeout", "1ms"],
    "work": ["--drain", "--quiet", "--timeout", "5s", "--grace", "1s"],
    "purge": ["--dry-run"],
    "bench": ["--seconds", "0.01"],
}
"""What keeps a verb from taking long."""

LAST: Final[dict[str, list[str]]] = {"work": ["--exec", "true"]}

APART: Final = frozenset({("bench", "directory"), ("bench", "durability"), ("backup", "path")})
"""These would measure a disk, or copy the queue, under any name."""


class Place(NamedTuple):
    """Where a hostile word can stand."""

    verb: str
    parameter: str
    option: str | None
    before: list[str]
    after: list[str]

    def words(self, word: str) -> list[str]:
        """The command line."""
        given = [word] if self.option is None else [self.option, word]
        return [*self.verb.split(), *self.before, *given, *self.after]


def places() -> list[Place]:
    """Every argument and every option of every verb that takes a value."""
    found = []
    for verb in all_verbs():
        command = _command(verb)
        for one in command.params:
            if (verb, one.name) in APART or getattr(one, "is_flag", False):
                continue
            needed = [
                word
                for other in command.params
                if other is not one and other.required
                for word in _given(other)
            ]
            always = [] if one.opts[0] in ALWAYS.get(verb, []) else ALWAYS.get(verb, [])
            option = one.opts[0] if isinstance(one, click.Option) else None
            # The order of arguments is theirs; options may stand anywhere.
            before, after = (needed, []) if option is None and one.nargs == -1 else ([], needed)
            found.append(
                Place(verb, one.name, option, [*always, *before], [*after, *LAST.get(verb, [])])
            )
    return found


def _given(parameter: click.Parameter) -> list[str]:
    assert parameter.name in GOOD, f"say in GOOD what is good for {parameter.name}"
    option = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
    return [*option, *GOOD[parameter.name]]


def judge(result: Result, *, as_json: bool = False) -> None:
    """That it ended as it should."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in STATUSES
    for text in (result.stdout, result.stderr):
        steers = {
            character for character in text if not (character.isprintable() or character == "\n")
        }
        assert not steers, f"{steers!r} in {text[:300]!r}"
    assert len(result.stderr) < 10_000
    if as_json and result.exit_code == 0:
        assert result.stdout.isascii()
        for line in result.stdout.splitlines():
            json.loads(line)


@pytest.fixture
def nasty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A queue with jobs in every state, in which all that is named is nasty."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        payload = {NASTY: [NASTY, NASTY.encode(), {1: NASTY}]}
        options: dict[str, Any] = {"name": NASTY, "tags": [NASTY, "a"], "group": NASTY}
        svc.enqueue("done", 1)
        svc.enqueue_many(NASTY, [payload] * 5, **options)
        svc.enqueue(NASTY, payload, unique=NASTY, delay=60, **options)
        svc.enqueue("mail", "plain", unique="key")
        svc.configure(NASTY, concurrency=9, rate=(5, 60), group_concurrency=4)
        retried, dead, canceled, held = svc.reserve(NASTY, 4, timeout=0)
        for job in (retried, dead, canceled, held):
            job.log(f"a {NASTY} line")
            job.progress(1, 3, f"at {NASTY}")
        retried.retry(60, error=f"Traceback {NASTY}\n  File {NASTY}\nValueError: {NASTY}")
        dead.cancel("rejected", f"no {NASTY}")
        svc.cancel(canceled.id, error=NASTY)
        (job,) = svc.reserve("done", timeout=0)
        job.done({NASTY: NASTY})
        held.release()
    return path


SHOWS: Final[dict[str, list[list[str]]]] = {
    "init": [[]],
    "stats": [[], [NASTY.replace("\0", "")], ["mail"]],
    "topics list": [[]],
    "topics configure": [
        [NASTY.replace("\0", ""), "--max-jobs", "5"],
        ["--all", "--max-jobs", "500"],
    ],
    "topics pause": [[NASTY.replace("\0", "")]],
    "topics resume": [[NASTY.replace("\0", "")]],
    "topics drain": [[NASTY.replace("\0", ""), "--timeout", "1ms"]],
    "topics limits": [["mail"], ["--all"]],
    "topics release": [["mail", "--yes"]],
    "groups list": [["{topic}"]],
    "groups release": [["{topic}", "{topic}", "--yes"], ["{topic}", "other", "--yes"]],
    "keys list": [[]],
    "keys release": [["key", "--yes"], [NASTY.replace("\0", ""), "--yes"]],
    "jobs list": [[], ["--dead"], ["--limit", "2"], ["--with-error", "\x1b"]],
    "jobs show": [["{each}"]],
    "jobs logs": [["{each}"]],
    "jobs wait": [["{each}", "--timeout", "1ms"]],
    "jobs enqueue": [[NASTY.replace("\0", ""), "1", "--name", NASTY.replace("\0", "")]],
    "jobs edit": [["{each}", "--weight", "3", "--yes"]],
    "jobs move": [["{each}", "--to", "x\x1b[2J", "--yes"], ["--all", "--to", "\x1b", "--dry-run"]],
    "jobs cancel": [["--all", "--dry-run"], ["--with-error", "\x1b[2J", "--dry-run"], ["{each}"]],
    "jobs retry": [["--all", "--dry-run"], ["{each}", "--yes"]],
    "jobs delete": [["--all", "--dry-run"], ["{each}", "--yes"]],
    "dead list": [[]],
    "dead retry": [["--dry-run"], ["--with-error", "\x1b", "--yes"]],
    "dead purge": [["--dry-run"], ["--yes"]],
    "work": [["mail", "--drain", "--exec", "true"], ["x\x1b", "--drain", "--exec", "false"]],
    "purge": [["mail", "--dry-run"], [NASTY.replace("\0", ""), "--yes"]],
    "export": [[], ["x\x1b[2J"], ["--salvage"]],
    "import": [["no\x1b[2J"]],
    "backup": [["b\x1b[2J"], ["b\x1b[2J"]],
    "restore": [["b\x1b", "to\x1b"]],
    "compact": [[], ["no\x1b[2J"]],
    "check": [[], ["--repair", "--yes"]],
    "doctor": [[], ["no\x1b[2J"]],
    "bench": [["/no\x1b[2J", "--seconds", "0.01"]],
}
"""Each verb on the nasty queue. `{each}` is each job in turn, `{topic}` a nasty name."""


def test_every_verb_has_been_thought_of() -> None:
    assert SHOWS.keys() == set(all_verbs())


@pytest.mark.parametrize("verb", SHOWS)
def test_nothing_in_a_queue_steers_the_terminal_that_shows_it(verb: str, nasty_queue: Path) -> None:
    as_json = any("--json" in one.opts for one in _command(verb).params)
    with jobq.open(nasty_queue, create=False) as svc:
        ids = [job.id for job in svc.find()]
    for words in SHOWS[verb]:
        for job_id in ids if "{each}" in words else [""]:
            line = [
                job_id if word == "{each}" else word.replace("{topic}", NASTY) for word in words
            ]
            judge(call("--db", nasty_queue, *verb.split(), *line))
            if as_json:
                at = line.index("--exec") if "--exec" in line else len(line)
                line = [*verb.split(), *line[:at], "--json", *line[at:]]
                judge(call("--db", nasty_queue, *line), as_json=True)


def _command(verb: str) -> Any:
    command: Any = cli.main
    for word in verb.split():
        command = command.get_command(click.Context(command), word)
    return command


@pytest.mark.parametrize(
    "words",
    [
        [NASTY],
        ["jobs", NASTY],
        [f"--{NASTY}"],
        ["stats", "a", NASTY],
        ["stats", f"--{NASTY}"],
        ["jobs", "list", "--limit", NASTY],
        ["jobs", "list", "--status", NASTY],
        ["jobs", "list", f"--limit={NASTY}"],
        ["--db", NASTY.replace("\0", ""), "stats"],
    ],
    ids=lambda words: " ".join(words).replace(NASTY, "NASTY"),
)
def test_a_wrong_command_line_does_not_steer_the_terminal_either(
    words: list[str], nasty_queue: Path
) -> None:
    result = call("--db", nasty_queue, *words)

    assert result.exit_code in {FAILED, WRONG_COMMAND, NOT_FOUND}
    judge(result)


def tried(queue: Path, some: Iterator[tuple[Place, str]]) -> dict[int, int]:
    """How many ended with which status."""
    ended: dict[int, int] = {}
    for place, word in some:
        result = call("--db", queue, *place.words(word), stdin="")
        try:
            judge(result)
        except BaseException as error:
            raise AssertionError(f"{' '.join(place.words(word))[:200]!r}") from error
        ended[result.exit_code] = ended.get(result.exit_code, 0) + 1
    with jobq.open(queue, create=False) as svc:
        assert svc.check().problems == ()
    return ended


def test_hostile_words_end_the_command_in_good_order(nasty_queue: Path, seed: int) -> None:
    chance = random.Random(seed)
    some = ((place, chance.choice(ARGUMENTS)) for place in chance.sample(places(), 80))

    ended = tried(nasty_queue, some)

    assert ended[WRONG_COMMAND] > 5


@pytest.mark.storm
@pytest.mark.parametrize("verb", all_verbs())
def test_every_hostile_word_in_every_place_ends_in_good_order(
    verb: str, nasty_queue: Path, say: Say
) -> None:
    every = ((place, word) for place in places() if place.verb == verb for word in ARGUMENTS)

    ended = tried(nasty_queue, every)

    say(f"{sum(ended.values()):,} command lines: {ended}")
