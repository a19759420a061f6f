"""Parquet: one bad value costs one row, and what nobody reads costs nothing."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from im_assets.candidates.files import read_records
from im_assets.candidates.format_registry import FORMATS, data_format
from im_assets.candidates.reading import SourceError, read_source
from im_resources.study import DataSource
from tests.registries import isolate

TEXT = pa.array(["x", "y", "z"])
BAD_TEXT = pa.Array.from_buffers(
    pa.string(), 3, pa.array([b"a", b"\xff\xfe", b"b"], pa.binary()).buffers()
)
BAD_VALUES = {
    "text": BAD_TEXT,
    "dates": pa.array([0, 2**30, 0], pa.date32()),
    "zone": pa.array([0, 0, 0], pa.timestamp("s", "No/Where")),
    "times": pa.array([0, 2**62, 0], pa.timestamp("us")),
    "spans": pa.array([0, 2**62, 0], pa.duration("s")),
}


def write(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def read(path: Path, extra: dict[str, str] | None = None, **settings: Any) -> Any:
    source = DataSource.model_validate({"path": str(path), **settings})
    rows, rejected = read_source("mine", source, extra)
    return rows["line"].tolist(), dict(zip(rejected["line"], rejected["reason"], strict=True))


@pytest.mark.parametrize("format_", ["alpaca", "any_column"])
def test_bad_values_that_nobody_reads_do_not_matter(
    tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(FORMATS, monkeypatch)

    @data_format("any_column", columns={"instruction": "instruction"})
    def any_column(row: dict[str, Any]) -> dict[str, str]:
        return {"instruction": row["instruction"], "output": row["output"]}

    path = write(tmp_path, {"instruction": TEXT, "output": TEXT, **BAD_VALUES})
    assert read(path, format=format_) == ([1, 2, 3], {})


def test_a_bad_value_costs_its_row(tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": TEXT, "output": BAD_TEXT})
    assert read(path) == ([1, 3], {2: "field 'output' is not valid UTF-8"})
    path = write(tmp_path, {"instruction": TEXT, "output": TEXT, "category": BAD_TEXT})
    assert read(path) == ([1, 3], {2: "field 'category' is not valid UTF-8"})


@pytest.mark.parametrize("kind", [kind for kind in BAD_VALUES if kind != "text"])
def test_a_value_that_python_cannot_hold_is_named_where_it_is_read(
    tmp_path: Path, kind: str
) -> None:
    path = write(tmp_path, {"instruction": TEXT, "output": TEXT, "n": BAD_VALUES[kind]})
    reason = read(path, {"n": "text"})[1][2]
    assert "field 'n' is no " in reason


def test_only_the_columns_that_are_used_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": TEXT, "output": TEXT, "other": TEXT})
    (_, first), *_ = read_records(path, {"instruction", "nowhere"})
    assert first == {"instruction": "x"}


def test_a_wrong_mapping_shows_columns_that_were_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": TEXT, "response": TEXT})
    with pytest.raises(SourceError, match=r"'output'.*columns found: instruction, response"):
        read(path)


def test_a_column_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table([TEXT, TEXT, TEXT], names=["instruction", "output", "output"]), path)
    with pytest.raises(SourceError, match=r"has the columns 'output' twice"):
        read(path)


def test_a_compression_bomb_is_refused(tmp_path: Path) -> None:
    text = pa.array(["x" * 1000]).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 300_000, pa.int32()), text.dictionary)
    path = write(tmp_path, {"instruction": column, "output": column})
    assert path.stat().st_size < 1e6
    with pytest.raises(SourceError, match="as a compression bomb does"):
        read(path)


def test_a_damaged_name_of_a_column_is_one_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"instruction": TEXT, "output": TEXT}), buffer, store_schema=False)
    path = tmp_path / "rows.parquet"
    path.write_bytes(buffer.getvalue().replace(b"output", b"out\xbaut"))
    with pytest.raises(SourceError, match=r"rows\.parquet: damaged Parquet file"):
        read(path)
