"""Writes the same rows as every kind of file that the reader knows."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = [
    kind + packing
    for kind in ("json", "jsonl", "csv", "tsv", "parquet")
    for packing in ("", ".gz", ".zst")
]
_PACK = {
    ".gz": gzip.compress,
    ".zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
}


def write_rows(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """A file of the kind ('jsonl', 'csv.gz', …); lists become JSON text in CSV cells."""
    path = folder / f"rows.{kind}"
    content = _CONTENT[kind.split(".", maxsplit=1)[0]](rows)
    path.write_bytes(_PACK.get(path.suffix, bytes)(content))
    return path


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return text.getvalue().encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


_CONTENT = {
    "json": lambda rows: json.dumps(rows).encode(),
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": lambda rows: _csv(rows, "\t"),
    "parquet": _parquet,
}
