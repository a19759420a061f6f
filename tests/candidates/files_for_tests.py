"""Writes the same rows as every kind of file that the reader knows."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = [kind + gz for kind in ("json", "jsonl", "csv", "parquet") for gz in ("", ".gz")]


def write_rows(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """A file of the kind ('jsonl', 'csv.gz', …); lists become JSON text in CSV cells."""
    content = _CONTENT[kind.removesuffix(".gz")](rows)
    path = folder / f"rows.{kind}"
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
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
    "parquet": _parquet,
}
