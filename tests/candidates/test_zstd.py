"""zstd: read where pyarrow has it; cut off, damaged or far too large, the file is named."""

import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from im_assets.candidates.files import SourceError, read_records

ROWS = [{"instruction": os.urandom(300).hex(), "output": "天空是蓝色的。"} for _ in range(400)]


def lines(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def packed(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_several_frames_are_one_stream(tmp_path: Path) -> None:
    content = packed(lines(ROWS[:150])) + packed(lines(ROWS[150:]))
    assert [row for _, row in read_records(write(tmp_path / "a.jsonl.zst", content))] == ROWS


@pytest.mark.parametrize("change", ["cut", "damaged", "followed"])
def test_what_is_not_whole_is_an_error_with_the_line(tmp_path: Path, change: str) -> None:
    content = packed(lines(ROWS))
    middle = len(content) // 2
    changed = {
        "cut": content[:-5000],
        "damaged": content[:middle] + bytes(2000) + content[middle + 2000 :],
        "followed": content + b"something else",
    }[change]
    path = write(tmp_path / "a.jsonl.zst", changed)
    with pytest.raises(SourceError, match=r"a\.jsonl\.zst: truncated, damaged or not zstd after l"):
        list(read_records(path))


def test_what_is_not_zstd_is_named_after_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not zstd after line 0"):
        list(read_records(write(tmp_path / "a.jsonl.zst", lines(ROWS))))
    with pytest.raises(SourceError, match=r"holds zstd data, name it a\.csv\.zst"):
        list(read_records(write(tmp_path / "a.csv.gz", packed(b"a,b\n1,2\n"))))


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.zst", packed(b" " * 300_000_000))
    tracemalloc.start()
    with pytest.raises(SourceError, match="compression bomb"):
        list(read_records(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_an_arrow_without_zstd_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl.zst", packed(lines(ROWS)))

    class Without:
        is_available = staticmethod(lambda name: False)

    monkeypatch.setattr(pa, "Codec", Without)
    with pytest.raises(SourceError, match=r"unpack it \(zstd -d\)"):
        list(read_records(path))
