"""What a file holds, whatever its name says: known by its first bytes."""

import codecs
import json
from pathlib import Path

from im_assets.candidates.unpacking import PACKINGS

HEAD = 512  # bytes that recognize() has to be given, where the file is as long
_UNPACK = "which is not read: unpack it"
# First bytes, what they are, and the suffix under which it is read or what to do instead.
_KINDS = (
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"PAR1", "Parquet data", ".parquet"),
    (b"\x28\xb5\x2f\xfd", "zstd data", ".zst"),
    (b"PK\x03\x04", "a zip archive or an office document", _UNPACK),
    (b"BZh", "bzip2 data", _UNPACK),
    (b"\xfd7zXZ\0", "xz data", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "lz4 data", _UNPACK),
    (b"ARROW1", "Arrow data", "which is not read: write it as Parquet"),
    (b"SQLite format 3\0", "an SQLite database", "which is not read: export its rows"),
    (b"%PDF-", "a PDF document", "which holds no rows"),
)
_UTF16 = "save it as UTF-8 (iconv -f {0} -t UTF-8)"
_BINARY = *PACKINGS, ".parquet"


def wrong_content(path: Path, head: bytes, suffix: str) -> str | None:
    """What the file holds and what would do, or None where it may be what its name says.

    Args:
        path: of the file, for the name that would do.
        head: the first `HEAD` bytes, unpacked where ``suffix`` stands inside of .gz or .zst.
        suffix: what the content is read as: .gz, .zst, .json, .jsonl, .csv, .tsv or .parquet.
    """
    packed = path.suffix.lower() in PACKINGS
    inside = "unpacked, " if suffix not in PACKINGS and packed else ""
    for magic, what, remedy in _KINDS:
        if head.startswith(magic) and remedy != suffix:
            return f"{inside}holds {what}, {_advice(path, suffix, remedy)}"
    if head[257:262] == b"ustar":
        return f"{inside}holds a tar archive, {_UNPACK}"
    if suffix == ".parquet" and not head.startswith(b"PAR1"):
        return f"{inside}is no Parquet file, which begins with PAR1; name it after what it holds"
    if suffix in _BINARY:
        return None  # what unpacks has better words for what is not its own
    if encoding := _wide_text(head):
        return f"{inside}holds {encoding} text; {_UTF16.format(encoding)}"
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if start[:1] == b"<" and start[:9].lower() in (b"<!doctype", b"<html>", b"<html lan"):
        return f"{inside}holds a web page, not data; fetch the file itself"
    if suffix in (".csv", ".tsv") and _is_json(start):
        return f"{inside}holds JSON; name it {_named(path, suffix, '.jsonl')}"
    return None


def _advice(path: Path, suffix: str, remedy: str) -> str:
    if not remedy.startswith("."):
        return remedy
    if remedy in PACKINGS and suffix not in PACKINGS:
        twice = path.suffix.lower() in PACKINGS
        return "packed twice: unpack it once" if twice else f"name it {path.name}{remedy}"
    if remedy in PACKINGS:
        return f"name it {path.stem}{remedy}"
    return f"name it {_named(path, suffix, remedy)}"


def _named(path: Path, suffix: str, right: str) -> str:
    """The file's name with the suffix ``right`` in the place of ``suffix``."""
    packed = path.suffix if path.suffix.lower() in PACKINGS and suffix not in PACKINGS else ""
    if suffix in PACKINGS:  # a name that says packed, of a file that is not
        return Path(path.stem).with_suffix(right).name
    return Path(path.name.removesuffix(packed)).with_suffix(right).name + packed


def _wide_text(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark, or by the zeros that every second byte of it is."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    for first, name in ((0, "UTF-16BE"), (1, "UTF-16LE")):
        zeros = head[first:64:2]
        if len(zeros) >= 4 and not any(zeros) and any(head[1 - first : 64 : 2]):
            return name
    return None


def _is_json(start: bytes) -> bool:
    """Whether the text begins with an object that has a key, as no header of CSV does."""
    line = start.split(b"\n", 1)[0]
    try:
        return isinstance(json.loads(line), dict | list) and start[:1] in b"{["
    except (ValueError, RecursionError):
        return start[:1] == b"{" and b'":' in line.replace(b" ", b"")
