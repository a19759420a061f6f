"""How a process of the platform uses threads and memory, whoever starts it and however.

Called when ``im_resources`` is imported, before torch is. What a user has set stays.
"""

import ctypes
import os
import sys

# Idle OpenMP threads sleep instead of spinning; spinning ones took a step from 1.3 s to 30 s on a
# busy machine. The tokenizer's own threads do not survive the fork of a Dagster step, and warn.
VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
# Bytes. glibc gives every tensor over 32 MiB back to the kernel and faults its pages in again at
# the next step: 61,000 faults for 240 MB, 8 times the time. Keeping the memory costs a larger
# process. Both are needed for an effect. Numbers as in malloc.h; the second is the largest int.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 2**30), (-1, 2**31 - 1)


def settle() -> bool:
    """Set what is not set; whether the allocator took it (other C libraries have none such)."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    chosen = {
        "MALLOC_MMAP_THRESHOLD_": MMAP_THRESHOLD,
        "MALLOC_TRIM_THRESHOLD_": TRIM_THRESHOLD,
    }
    done = [mallopt(*option) for name, option in chosen.items() if name not in os.environ]
    return all(done)
