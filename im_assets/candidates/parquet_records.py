"""Rows of a Parquet file. A value that Python cannot hold is a bad cell, not a bad file."""

from collections.abc import Collection, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from im_assets.candidates.records import BadValue, NotRows, Record
from im_assets.candidates.unpacking import check_growth

MAX_UNPACKED_BYTES = 1_000_000_000  # of a .parquet.gz, which is held in memory
_BATCH = 128  # rows; a batch of the longest values has to fit into memory
# What conversions of single values raise: invalid UTF-8, dates beyond the year 9999, time zones
# that this machine does not know, durations that overflow, structs that have a field twice.
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    pa.ArrowException,
)


def parquet(file: IO[bytes], columns: Collection[str] | None) -> Iterator[Record]:
    """Rows with those of the file's columns that are in ``columns``; None: all of them.

    Raises:
        NotRows: a damaged file, a column that is used is there twice, or a compression bomb.
        OSError: the file can't be read.
    """
    try:
        yield from _rows(file, columns)
    except NotRows:
        raise
    except _UNREADABLE as error:
        raise NotRows(f"damaged Parquet file: {error}") from error


def _rows(file: IO[bytes], columns: Collection[str] | None) -> Iterator[Record]:
    packed = file.seek(0, 2)
    file.seek(0)
    source = pq.ParquetFile(file)
    names = source.schema_arrow.names
    used = [name for name in dict.fromkeys(names) if columns is None or name in columns]
    if twice := sorted({name for name in used if names.count(name) > 1}):
        raise NotRows(f"has the columns {', '.join(map(repr, twice))} twice; leave one of each")
    groups = range(source.metadata.num_row_groups)
    check_growth(sum(source.metadata.row_group(i).total_byte_size for i in groups), packed)
    number = unpacked = 0
    for batch in source.iter_batches(batch_size=_BATCH, columns=used):
        columns_read = [_written_out(batch.column(name)) for name in used]
        unpacked += sum(column.nbytes for column in columns_read)
        check_growth(unpacked, packed)
        cells = [_values(column) for column in columns_read]
        for row in zip(*cells, strict=True) if used else [()] * batch.num_rows:
            number += 1
            yield number, dict(zip(used, row, strict=True))


def _written_out(column: pa.Array) -> pa.Array:
    """The column without a dictionary, which hides how much it comes to."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _values(column: pa.Array) -> list[Any]:
    """The column's values; a BadValue in the place of one that cannot be read."""
    try:
        return column.to_pylist()
    except _UNREADABLE:
        return [_value(cell) for cell in column]


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except _UNREADABLE as error:
        reason = "is not valid UTF-8" if isinstance(error, UnicodeError) else f"is no {cell.type}"
        detail = "" if isinstance(error, UnicodeError) else f" that can be read ({error})"
        return BadValue(reason + detail)
