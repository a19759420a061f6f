"""Inputs of the fuzzer: small files of every kind and shape, and the shipped profiles, mutated.

Input number n is always the same, so that a number is all that repeats a fault.
"""

import gzip
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from im_resources.study import PROFILES
from tests.candidates.files_for_tests import KINDS, write_rows

TEXTS = [
    "Name a colour.", "Blue, the sky's.", "Übersetze:\n„ja“", "yes, no\nmaybe ✓", 'a "quoted" word',
    "x", "", "1,2,3\n4,5,6\n\nend", "{\"a\": 1}", "𝔘nicode\u2028 \u00a0", "5\" disk", "a\tb\r\nc",
]  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "alpaca": {"format": "alpaca"},
    "dolly": {"format": "dolly"},
    "messages": {"format": "messages"},
    "sharegpt": {"format": "sharegpt"},
    "fields": {"format": "fields", "fields": {"instruction": "q", "output": "a", "category": "c"}},
    "outputs": {"outputs": "outputs"},
}
TOKENS = [
    b'"', b'""', b'"""', b',"', b'",', b'"\n', b'\n"', b"\n", b"\r", b"\r\n", b"\n\n", b",", b":",
    b"{", b"}", b"[", b"]", b"\\", b"\\u0000", b"\\ud83d", b"\xff", b"\xc3", b"\x00",
    b"\xef\xbb\xbf", b"\xff\xfe", b"PAR1", b"\x1f\x8b", b"null", b"true", b"NaN", b"-Infinity",
    b"1e999", b"9" * 700, b"9" * 5000, b"[" * 300, b"[" * 3000, b'{"a":' * 1200, b"]" * 300,
    b'"instruction": "twice", ', b'"output": "twice", ', b"instruction,", b" ", b"\t", b";",
    b"\xe2\x80\xa8", b"\x1c", b"\x85",
]  # fmt: skip
YAML_TOKENS = [
    b"\n", b": ", b"- ", b"  ", b"\t", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: *a\n", b"? ",
    b"|\n", b">\n", b"!!int ", b"!!timestamp ", b"!!binary ", b"!!set ", b"!!omap ",
    b"!!python/name:os.system ", b"2024-13-45", b"2024-01-01", b"9" * 50, b"9" * 5000, b"1:59:59",
    b"0x1F", b".inf", b".nan", b"~", b"null", b"yes", b"-1", b"0", b"1e400", b"'", b'"', b"#",
    b"%", b"@", b"`", b"---\n", b"...\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"name: twice\n",
    b"extends: demo\n", b"extends: nowhere\n", b"[" * 400, b"{a: " * 400,
    b"[*a, *a, *a, *a, *a, *a, *a, *a]", b"../../etc/passwd", b"${NOT_SET}",
]  # fmt: skip


@dataclass(frozen=True)
class DataInput:
    """A data file as it lies on disk, and how the profile says it is read."""

    name: str
    content: bytes
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProfileInput:
    """The bytes of a profile."""

    content: bytes


Input = DataInput | ProfileInput


def input_of(number: int) -> Input:
    """Input ``number``: one in eight is a profile."""
    rng = random.Random(number)
    if number % 8 == 0:
        content = rng.choice(_profiles())
        return ProfileInput(_mutated(content, rng, YAML_TOKENS, rng.randint(1, 6)))
    kind, shape = rng.choice(KINDS), rng.choice(list(SHAPES))
    content, changes = _file(kind, shape, rng.randrange(4)), rng.randint(0, 5)
    if kind.startswith("parquet") and rng.random() < 0.5:
        content = _odd_parquet(rng)
        content = gzip.compress(content) if kind.endswith(".gz") else content
        changes = rng.choice([0, 0, 0, 1])  # what is odd about it is inside
    if kind.endswith(".gz") and rng.random() < 0.8:  # else the packed bytes are damaged
        inner = _mutated(gzip.decompress(content), rng, TOKENS, changes)
        content = gzip.compress(inner, 1)
    else:
        content = _mutated(content, rng, TOKENS, changes)
    name_kind = kind if rng.random() < 0.95 else rng.choice(KINDS)
    settings = dict(SHAPES[shape])
    if rng.random() < 0.1:
        settings["max_line_mb"] = rng.choice([0.00002, 0.0001, 0.001])
    return DataInput(f"rows.{name_kind}", content, settings)


def _mutated(content: bytes, rng: random.Random, tokens: list[bytes], times: int) -> bytes:
    changes: list[Callable[[bytes], bytes]] = [
        lambda text: _spliced(text, rng, rng.choice(tokens)),
        lambda text: _spliced(text, rng, rng.choice(tokens), rng.randint(1, 8)),
        lambda text: _spliced(text, rng, b"", rng.randint(1, 40)),
        lambda text: _spliced(text, rng, bytes([rng.randrange(256)]), 1),
        lambda text: text[: rng.randint(0, len(text))],
        lambda text: _copied(text, rng),
        lambda text: _lines_moved(text, rng),
    ]
    for _ in range(times):
        content = rng.choices(changes, [6, 4, 3, 4, 1, 2, 2])[0](content)
    return content


def _spliced(text: bytes, rng: random.Random, new: bytes, removed: int = 0) -> bytes:
    at = rng.randint(0, len(text))
    return text[:at] + new + text[at + removed :]


def _copied(text: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(text))
    return _spliced(text, rng, text[start : start + rng.randint(1, 200)])


def _lines_moved(text: bytes, rng: random.Random) -> bytes:
    lines = text.splitlines(keepends=True)
    if lines:
        lines.insert(rng.randint(0, len(lines)), rng.choice(lines))
        lines.pop(rng.randrange(len(lines)))
    return b"".join(lines)


@cache
def _profiles() -> list[bytes]:
    return [path.read_bytes() for path in sorted(PROFILES.glob("*.yaml"))]


@cache
def _file(kind: str, shape: str, variant: int) -> bytes:
    rng = random.Random(variant)
    rows = [_row(shape, rng) for _ in range(rng.randint(1, 12))]
    with TemporaryDirectory() as folder:
        return write_rows(Path(folder), kind, rows).read_bytes()


def _row(shape: str, rng: random.Random) -> dict[str, Any]:
    ask, answer, more = rng.choice(TEXTS), rng.choice(TEXTS), rng.choice(TEXTS)
    if shape == "alpaca":
        return {"instruction": ask, "input": more, "output": answer, "n": rng.random()}
    if shape == "dolly":
        return {"instruction": ask, "context": more, "response": answer, "category": "qa"}
    if shape == "messages":
        turns = [("system", more), ("user", ask), ("assistant", answer)]
        return {"messages": [{"role": role, "content": said} for role, said in turns]}
    if shape == "sharegpt":
        return {
            "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}]
        }
    if shape == "fields":
        return {"q": ask, "a": answer, "c": more}
    return {"instruction": ask, "outputs": [answer, more]}


def _odd_parquet(rng: random.Random) -> bytes:
    """Columns of odd types, and of values that Python cannot hold."""
    count = rng.randint(0, 6)
    odd: list[Callable[[], pa.Array]] = [
        lambda: pa.array([rng.choice(TEXTS) for _ in range(count)], pa.string()),
        lambda: _bytes_as_text([rng.choice([b"ok", b"\xff", b"a\xc3"]) for _ in range(count)]),
        lambda: pa.array([rng.randrange(-(2**31), 2**31) for _ in range(count)], pa.date32()),
        lambda: pa.array([rng.randrange(2**40)] * count, pa.timestamp("s", "No/Zone")),
        lambda: pa.array([rng.randrange(2**62) for _ in range(count)], pa.timestamp("us")),
        lambda: pa.array([rng.randrange(2**62) for _ in range(count)], pa.duration("s")),
        lambda: pa.array([None] * count, pa.null()),
        lambda: pa.array([[rng.choice(TEXTS)]] * count, pa.list_(pa.string())),
        lambda: pa.array([rng.choice(TEXTS) for _ in range(count)]).dictionary_encode(),
        lambda: pa.array([[("k", 1), ("k", 2)]] * count, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([b"bytes"] * count, pa.binary()),
    ]
    names = ["instruction", "output", "category", "messages", "outputs", "q", "a", "other"]
    chosen = rng.sample(names, rng.randint(1, len(names)))
    if rng.random() < 0.1:
        chosen.append(chosen[0])
    buffer = io.BytesIO()
    pq.write_table(pa.table([rng.choice(odd)() for _ in chosen], names=chosen), buffer)
    return buffer.getvalue()


def _bytes_as_text(values: list[bytes]) -> pa.Array:
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())
