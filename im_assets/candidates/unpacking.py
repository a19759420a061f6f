"""Gzip data as a stream that stops where a small file would unpack into a very large one."""

import gzip
import io
from typing import IO

from im_assets.candidates.records import NotRows

# Text shrinks to a tenth, one with much repetition to a fiftieth; gzip's own limit is 1,032.
MAX_GROWTH = 200
ALWAYS_UNPACKED = 16_000_000  # bytes; so much is unpacked whatever it grew from
MAX_UNPACKED = 4_000_000_000  # bytes
_STEP = 1 << 18  # bytes


class Unpacked(io.RawIOBase):
    """What a gzip file holds. Reading raises NotRows when it is too much for what it came from."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._gzip = packed, gzip.GzipFile(fileobj=packed)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._gzip.readinto(buffer[:_STEP])  # a large read is checked as it goes
        self._size += count
        check_growth(self._size, self._packed.tell())
        if self._size > MAX_UNPACKED:
            raise NotRows(
                f"unpacks to over {MAX_UNPACKED / 1e9:g} GB; unpack it (gunzip) and give the file "
                "that comes of it, which may be of any size"
            )
        return count


def check_growth(unpacked: int, packed: int) -> None:
    """Raises NotRows when ``packed`` bytes of a file hold ``unpacked`` ones: a compression bomb."""
    if unpacked > max(ALWAYS_UNPACKED, MAX_GROWTH * packed):
        raise NotRows(
            f"unpacks to over {unpacked / 1e6:.0f} MB from {packed / 1e6:.3f} MB, more than "
            f"{MAX_GROWTH} to 1, as a compression bomb does; if the content is wanted, write it "
            "uncompressed as .jsonl"
        )
