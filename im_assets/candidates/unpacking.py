"""Packed data as a stream that stops where a small file would unpack into a very large one."""

import gzip
import io
from typing import IO, Any

import pyarrow as pa

from im_assets.candidates.records import NotRows

PACKINGS = {".gz": "gzip", ".zst": "zstd"}  # by suffix

# Text shrinks to a tenth, one with much repetition to a fiftieth; gzip's own limit is 1,032.
MAX_GROWTH = 200
ALWAYS_UNPACKED = 16_000_000  # bytes; so much is unpacked whatever it grew from
MAX_UNPACKED = 4_000_000_000  # bytes
_STEP = 1 << 18  # bytes


class DamagedZstd(ValueError):
    """Zstd data that is damaged or ends early; Arrow says which."""


class Unpacked(io.RawIOBase):
    """What a packed file holds. Reading raises NotRows when it is too much for what it came from.

    Raises NotRows for zstd where the installed Arrow was built without it.
    """

    def __init__(self, packed: IO[bytes], suffix: str) -> None:
        self._packed = packed
        self._unpacking: Any = gzip.GzipFile(fileobj=packed) if suffix == ".gz" else _zstd(packed)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            count = self._unpacking.readinto(buffer[:_STEP])  # a large read is checked as it goes
        except OSError as error:
            if isinstance(self._unpacking, gzip.GzipFile):
                raise
            raise DamagedZstd(str(error)) from error
        self._size += count
        check_growth(self._size, self._packed.tell())
        if self._size > MAX_UNPACKED:
            raise NotRows(
                f"unpacks to over {MAX_UNPACKED / 1e9:g} GB; unpack it and give the file "
                "that comes of it, which may be of any size"
            )
        return count


def _zstd(packed: IO[bytes]) -> pa.NativeFile:
    if not pa.Codec.is_available("zstd"):
        raise NotRows(
            "holds zstd data, which the pyarrow of this installation cannot unpack: unpack it "
            "(zstd -d), or install a pyarrow that was built with zstd"
        )
    return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")


def check_growth(unpacked: int, packed: int) -> None:
    """Raises NotRows when ``packed`` bytes of a file hold ``unpacked`` ones: a compression bomb."""
    if unpacked > max(ALWAYS_UNPACKED, MAX_GROWTH * packed):
        raise NotRows(
            f"unpacks to over {unpacked / 1e6:.0f} MB from {packed / 1e6:.3f} MB, more than "
            f"{MAX_GROWTH} to 1, as a compression bomb does; if the content is wanted, write it "
            "uncompressed as .jsonl"
        )
