"""Rows of a CSV file: quoted fields may hold commas, doubled quotes and line breaks (RFC 4180).

Fields may also be separated by semicolons, tabs or bars. Which it is, the first rows say: the one
under which most of them have as many fields as the header.

A row that cannot be parsed is a Fault with the line that it begins on, and the reading goes on at
the *next line*: a stray quote opens a field that ends at any later quote, or never, and so would
swallow rows. A row with more or fewer fields than the header is a Fault, too.

What follows on a row that cannot be parsed may be rows, or the rest of a broken answer of several
lines, of which one such as ``yes, no`` looks like a row. So it is held back until the file shows
what it is (`_Doubt`), and is a Fault that names the broken row where it does not: no row is made of
a piece of a broken one, and no line is lost.

What is a good row by itself is one: two stray quotes that enclose whole lines, with as many fields
as the header, are a field with line breaks; and a stray quote at the end of a field's line may end
the row there, and the field's other lines may look like rows.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple

from im_assets.candidates.records import MAX_LINE_MB, Fault, NotRows, Record, numbered_lines
from im_resources.texts import printable

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}  # commas if in doubt
_LOOKED_AT, _LOOKED_AT_MOST = 50, 1_000_000  # lines, characters: to tell what separates fields
_QUOTED_ROWS, _PLAIN_ROWS = 2, 100  # in a row and in order, so many are rows and no pieces
# Lines are parsed again after each fault: so much on the whole, then the file is given up. A line
# costs as much time as about a hundred characters.
_AGAIN, _AGAIN_AT_LEAST, _LINE = 3, 20_000_000, 100  # times what was read; characters
_EXCERPT = 1000

_Line = tuple[int, str | Fault]


class _Parsed(NamedTuple):
    """A row: its first line, its fields or why there are none, and the lines it was read from."""

    line: int
    cells: list[str]
    reason: str
    lines: list[_Line]

    def text(self) -> str:
        return "".join(t.excerpt if isinstance(t, Fault) else t for _, t in self.lines)

    def quoted(self) -> bool:
        return any('"' in line for _, line in self.lines)

    def row(self, header: list[str]) -> Any:
        if self.reason:
            return Fault(f"bad CSV: {self.reason}", self.text()[:_EXCERPT])
        return dict(zip(header, self.cells, strict=True))


def csv_rows(file: IO[bytes], max_line_mb: float, delimiter: str | None = None) -> Iterator[Record]:
    """The rows as dicts by the header's names, numbered by the line that each begins on.

    Args:
        delimiter: the character between fields; None: what the first lines show.

    Raises NotRows: a header that cannot be parsed or has a name twice, or too many open quotes.
    """
    lines = _Lines(file, max_line_mb)
    lines.delimiter = delimiter = delimiter or delimiter_of(lines.ahead(_LOOKED_AT))
    field = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{re.escape(delimiter)}\r\n]*)'
    well_quoted = re.compile(rf"{field}(?:{re.escape(delimiter)}{field})*\r?\n?\Z")
    parser = csv.reader(lines, strict=True, delimiter=delimiter)
    header = _header(lines.parse(parser))
    doubt: _Doubt | None = None
    several = False  # whether a row so far was of several lines
    while parsed := lines.parse(parser):
        if not doubt and not parsed.reason and len(parsed.cells) == len(header):
            several = several or len(parsed.lines) > 1
            yield parsed.line, dict(zip(header, parsed.cells, strict=True))
            continue
        broken = failed = bool(parsed.reason)
        if not broken and len(parsed.cells) != len(header):
            few = "fewer" if len(parsed.cells) < len(header) else "more"
            said = f"{few} fields than the header ({len(parsed.cells)}, not {len(header)})"
            parsed = parsed._replace(reason=said)
            broken = parsed.quoted()  # a stray quote may be why
        # A row of several lines with too few fields is one, where rows are of several.
        if failed or (broken and not several):
            lines.give_back(parsed)
        if doubt:
            yield from doubt.told_by(parsed, broken, several)
            if doubt.over:
                doubt = None
        else:
            yield parsed.line, parsed.row(header)
        if broken:
            doubt = _Doubt(header, well_quoted, parsed, doubt)
        elif not parsed.reason:
            several = several or len(parsed.lines) > 1
    if doubt:
        yield from doubt.at_end(several, lines.whole)


def first_delimiter(file: IO[bytes]) -> str:
    """What separates the fields of the file, by its first lines; a comma if nothing does."""
    return delimiter_of(_Lines(file, MAX_LINE_MB).ahead(_LOOKED_AT))


def delimiter_of(lines: Sequence[str]) -> str:
    """What separates the fields of a file that begins with these lines; a comma if nothing does."""
    fit = {}
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if rows and len(rows[0]) > 1:
            fit[delimiter] = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
    return max(fit, key=lambda delimiter: fit[delimiter], default=",")


class _Doubt:
    """Rows after one that cannot be parsed, held back until it is clear that they are rows.

    They are from the first of two on that have quotes where they belong, behind the place where the
    parsing of the broken row failed. Those before it may be text of the broken row, and are Faults;
    but rows without quotes are taken for rows when a hundred follow on each other, all with as many
    fields as the header, or when the file ends so, with a whole line; though not in a file in which
    a row was of several lines.
    """

    def __init__(
        self,
        header: list[str],
        well_quoted: re.Pattern[str],
        broken: _Parsed,
        before: "_Doubt | None",
    ) -> None:
        self._header, self._well_quoted, self._line = header, well_quoted, broken.line
        self._suspect = before is not None
        self._failed: int = max(broken.lines[-1][0], before._failed if before else 0)
        self._held: list[_Parsed] = []
        self.over = False

    def told_by(self, parsed: _Parsed, broken: bool, several: bool) -> Iterator[Record]:
        """What the next row settles; ``over`` when no doubt is left."""
        if parsed.reason or (parsed.quoted() and not self._well_quoted.match(parsed.text())):
            yield from self._settled(None)
            yield parsed.line, parsed.row(self._header) if broken else self._fault(parsed)
            self._suspect = True
            return
        self._held.append(parsed)
        if sum(map(self._proves, self._held)) >= _QUOTED_ROWS:
            yield from self._settled(plain=False)
            self.over = True
        elif sum(not held.quoted() for held in self._held) >= _PLAIN_ROWS:
            yield from self._settled(None if several else True)
            self.over = not several

    def at_end(self, several: bool, whole: bool) -> Iterator[Record]:
        """What the end of the file settles; ``whole``: whether its last line has an end."""
        ended = any(held.quoted() and not self._proves(held) for held in self._held)
        sound = whole and not self._suspect
        yield from self._settled(not (several or ended) if sound else None)

    def _proves(self, held: _Parsed) -> bool:
        # A doubled quote may be an empty field or a quote in one: no proof of either.
        return held.quoted() and held.line > self._failed and '""' not in held.text()

    def _settled(self, plain: bool | None) -> Iterator[Record]:
        """What was held back: rows from the first proof on, and those without quotes if ``plain``;
        with None, no rows at all."""
        sure = False
        for held in self._held:
            sure = sure or (plain is not None and self._proves(held))
            taken = sure or (plain and not held.quoted())
            yield held.line, held.row(self._header) if taken else self._fault(held)
        self._held = []

    def _fault(self, parsed: _Parsed) -> Fault:
        own = f"{parsed.reason}; " if parsed.reason else ""
        said = f"bad CSV: {own}it may belong to the row of line {self._line}, which is broken"
        return Fault(said, parsed.text()[:_EXCERPT])


def _header(parsed: _Parsed | None) -> list[str]:
    if parsed is None:
        return []
    if parsed.reason:
        raise NotRows(f"the header on line {parsed.line} cannot be parsed: {parsed.reason}")
    names = parsed.cells
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        said = ", ".join(repr(name[:100]) for name in twice[:10])
        raise NotRows(f"the header has the column {said} twice; rename or remove one")
    if len(names) == 1 and (other := set(names[0]) & set(DELIMITERS)):
        found = " or ".join(DELIMITERS[delimiter] for delimiter in sorted(other))
        said = "give the right `delimiter`, or none, in the profile"
        raise NotRows(f"its header seems separated by {found}; {said}")
    return names


def _texts(lines: Iterable[_Line]) -> Iterator[str]:
    """The lines up to one that cannot be read."""
    for _, line in lines:
        if isinstance(line, Fault):
            return
        yield line


class _LineFaultError(Exception):
    """A line that is not there for the parser."""


class _Lines:
    """The lines of a file for a csv parser, to be read again from where they are given back.

    Attributes:
        delimiter: of the fields.
    """

    delimiter = ","

    def __init__(self, file: IO[bytes], max_line_mb: float) -> None:
        self._lines = numbered_lines(file, max_line_mb)
        self._back: deque[_Line] = deque()
        self._taken: list[_Line] = []
        self._limit, self._max_mb = max_line_mb * 1e6, max_line_mb
        self._last: _Line = (0, "")
        self._quoting = False  # whether the file has quoted fields
        self._size = self._read = self._again = 0  # characters: of this row, and on the whole
        csv.field_size_limit(max(csv.field_size_limit(), int(self._limit) + 1))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        item = self._back.popleft() if self._back else self._next()
        self._taken.append(item)
        line = item[1]
        if isinstance(line, Fault):
            raise _LineFaultError(line.reason)
        self._size += len(line)
        if self._size > self._limit and len(self._taken) > 1:
            raise _LineFaultError(f"longer than {self._max_mb:g} MB (max_line_mb)")
        return line

    def _next(self) -> _Line:
        item = self._last = next(self._lines)
        self._read += len(item[1])
        return item

    def ahead(self, count: int) -> list[str]:
        """The first lines, up to one that cannot be read; they are still to come."""
        with suppress(StopIteration):
            while len(self._back) < count and self._read < _LOOKED_AT_MOST:
                self._back.append(self._next())
        return list(_texts(self._back))

    @property
    def whole(self) -> bool:
        """Whether the last line had an end."""
        return isinstance(self._last[1], Fault) or self._last[1].endswith("\n")

    def parse(self, parser: Iterator[list[str]]) -> _Parsed | None:
        """The next row that is not blank; None at the end."""
        while True:
            self._taken, self._size, reason = [], 0, ""
            cells: list[str] = []
            try:
                cells = next(parser)
            except StopIteration:
                return None
            except (csv.Error, _LineFaultError) as error:
                reason = printable(str(error))  # it quotes the delimiter, which may be a tab
                if len(self._taken) > 1:
                    reason = f"a quote is not closed where a field ends ({reason}, on line "
                    reason += f"{self._taken[-1][0]})"
            if cells or reason:
                parsed = _Parsed(self._taken[0][0], cells, reason, self._taken)
                return parsed if reason else self._paired(parsed)

    def _paired(self, parsed: _Parsed) -> _Parsed:
        """The row, broken where a quote is too many: its fields end at the wrong places then.

        As long as the file has no quoted fields, a quote is a character as any other (5" disk).
        """
        if count := sum(line.count('"') for _, line in parsed.lines):
            text = parsed.text()
            if count % 2 and (
                self._quoting or text.startswith('"') or self.delimiter + '"' in text
            ):
                return parsed._replace(reason="a quote in it is neither closed nor doubled")
            self._quoting = self._quoting or count % 2 == 0
        return parsed

    def give_back(self, parsed: _Parsed) -> None:
        """Read again what follows the row's first line.

        Raises NotRows when so much is read again that it would take forever.
        """
        again = parsed.lines[1:]
        self._again += sum(len(line) + _LINE for _, line in again)
        if self._again > _AGAIN_AT_LEAST + _AGAIN * (self._read + _LINE * self._last[0]):
            raise NotRows(
                f"too many quotes that are not closed, the last on line {parsed.line}; is it CSV, "
                'with each quote inside of a field doubled ("")?'
            )
        self._back.extendleft(reversed(again))
