"""What every kind of data file is read into: numbered rows, with a fault in a bad one's place."""

import codecs
import io
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

MAX_LINE_MB = 10.0


class SourceError(ValueError):
    """A data source that cannot be used; says which, where, and what would be right."""


class NotRows(ValueError):
    """A file that does not hold rows; the message goes on after the path and a colon."""


class Fault(NamedTuple):
    """Why one row cannot be read, and the start of it."""

    reason: str
    excerpt: str


class BadValue(NamedTuple):
    """A cell that cannot be read, in the place of its value; who reads it gets the reason."""

    reason: str


Record = tuple[int, Any]  # (1-based line or row number, the parsed row or a Fault)


def numbered_lines(file: IO[bytes], max_mb: float) -> Iterator[tuple[int, str | Fault]]:
    """Numbered lines with their ends; of one over ``max_mb`` no more than that is ever held.

    Bytes that are not UTF-8 survive as surrogates (``surrogateescape``), to be judged where the
    text is used.
    """
    limit = max(int(max_mb * 1e6), 1)
    number = 0
    while line := file.readline(limit):
        number += 1
        whole = len(line) < limit or line.endswith(b"\n")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if whole:
            yield number, line.decode("utf-8", "surrogateescape")
            continue
        excerpt = line[:1000].decode("utf-8", "replace")
        size = len(line)
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
            size += len(line)
        said = f"line too long: {size / 1e6:.1f} MB, at most {max_mb:g} MB is read (max_line_mb)"
        yield number, Fault(said, excerpt)


def whole_content(file: IO[bytes], limit: int, remedy: str) -> io.BytesIO:
    """All of a file, for what can only be read as a whole.

    Raises NotRows for one of over ``limit`` bytes, with ``remedy``.
    """
    content = io.BytesIO()
    while chunk := file.read(1 << 18):
        content.write(chunk)
        if content.tell() > limit:
            said = f"over {limit / 1e9:g} GB, which have to be held in memory at once"
            raise NotRows(f"has {said}; {remedy}")
    return content
