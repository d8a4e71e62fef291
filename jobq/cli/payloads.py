"""Where payloads come from: an argument, a file, stdin; whole, or one a line."""

import json
import os
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, NamedTuple, NoReturn

from jobq.errors import InvalidValue, shown

STDIN: Final = "-"

MOST_AT_ONCE: Final = 1000
"""Lines that are enqueued in one commit."""

LARGEST: Final = 16 * 1024 * 1024
"""The most bytes of a whole payload or a line as it is read: JSON may take six times the room that
a payload takes in the store, whose limit is lower and told by its own error."""

_CHUNK: Final = 1024 * 1024


class WrongPayload(Exception):
    """What was given is no payload; the message says why."""


class Lines(NamedTuple):
    """Payloads of consecutive lines of the input.

    Attributes:
        last: The number of the last line that was read, from 1.
        numbers: The number of each payload's line; blank lines have none.
        payloads: In order.
    """

    last: int
    numbers: list[int]
    payloads: list[Any]


Reader = Callable[[bytes], Any]


def from_json(data: bytes) -> Any:
    r"""The value that *data* is in JSON, which is UTF-8.

    >>> from_json(b'{"to": ["ann", 1.5, null]}')
    {'to': ['ann', 1.5, None]}

    Raises:
        WrongPayload: It is no JSON; NaN and Infinity are none.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WrongPayload(
            f"{_excerpt(data)} is no JSON ({_why(error)}): quote it, or use --text for plain text"
        ) from error


def from_text(data: bytes) -> str:
    """The text that *data* is in UTF-8.

    Raises:
        WrongPayload: It is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WrongPayload(
            f"{_excerpt(data)} is not UTF-8 ({error.reason} at byte {error.start}): "
            "use --raw for a payload of bytes"
        ) from error


def from_raw(data: bytes) -> bytes:
    """The bytes as they are."""
    return data


def of_argument(argument: str, reader: Reader) -> Any:
    """The payload that an argument gives, whatever bytes are in it.

    Raises:
        WrongPayload: It is none.
    """
    return reader(os.fsencode(argument))


def of_stream(stream: IO[bytes], reader: Reader) -> Any:
    """The payload that a whole file is.

    Raises:
        WrongPayload: It is none, or too large to be one.
    """
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise WrongPayload(f"the input is longer than {LARGEST:,} bytes")
    return reader(data)


def of_lines(stream: IO[bytes], reader: Reader) -> Iterator[Lines]:
    """The payloads of a stream, up to `MOST_AT_ONCE` at a time, as soon as they are there.

    A line ends with a newline that is not part of it; a blank line of JSON is no payload.

    Raises:
        WrongPayload: A line is wrong; the message names it. Lines that were read together with
            it are not given.
    """
    last = 0
    for lines in _batches(stream):
        found = Lines(last + len(lines), [], [])
        for number, line in enumerate(lines, last + 1):
            if reader is from_json and not line.strip():
                continue
            if len(line) > LARGEST:
                raise WrongPayload(f"line {number}: longer than {LARGEST:,} bytes")
            try:
                found.payloads.append(reader(line))
            except WrongPayload as error:
                raise WrongPayload(f"line {number}: {error}") from error
            found.numbers.append(number)
        yield found
        last = found.last


def _batches(stream: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines of a stream without their newlines, those that are there together.

    A slow writer's lines are not kept waiting for a full batch: each read gives what is there.
    """
    read = getattr(stream, "read1", stream.read)
    rest = bytearray()
    while chunk := read(_CHUNK):
        rest += chunk
        end = rest.rfind(b"\n", len(rest) - len(chunk))
        if end < 0 and len(rest) <= LARGEST:
            continue
        # A line that is too long is handed on without its end: it is refused, and that is all.
        complete = bytes(rest[:end] if end >= 0 else rest)
        del rest[: end + 1 if end >= 0 else len(rest)]
        lines = complete.split(b"\n")
        for at in range(0, len(lines), MOST_AT_ONCE):
            yield lines[at : at + MOST_AT_ONCE]
    if rest:
        yield [bytes(rest)]


def _no_constant(name: str) -> NoReturn:
    raise InvalidValue(f"{name} is not a number of JSON")  # a ValueError


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):  # its own text speaks of lines, of a line
        return f"{error.msg} at character {error.pos + 1}"
    return str(error)


def _excerpt(data: bytes) -> str:
    return shown(data.decode(errors="backslashreplace"))
