"""Out of memory, in one line: what was being done, and which settings to lower.

What the kernel's OOM killer ends cannot be caught; what the allocators refuse can.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# torch's allocator on the CPU, C++'s, and the system's (mmap of a weights file).
SAID = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")


class OutOfMemoryError(MemoryError):
    """Memory did not suffice; says for what, and which settings to lower, with their values."""


@contextmanager
def enough_memory(doing: str, lower: Mapping[str, Any]) -> Iterator[None]:
    """Turn a refused allocation, of the GPU or of the machine, into an OutOfMemoryError.

    Args:
        lower: the settings that would help, with their values now.
    """
    import torch

    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_refused(error):
            raise
        where = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
        settings = ", or ".join(f"{name} (now {value})" for name, value in lower.items())
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutOfMemoryError(
            f"the {where}'s memory did not suffice for {doing}: lower {settings} ({cause})"
        ) from error


def is_refused(error: BaseException) -> bool:
    """Whether an allocator refused the memory that was asked for."""
    import torch

    refused = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return refused or any(said in str(error) for said in SAID)


def release(device: Any) -> None:
    """Give the memory that nothing uses back to a GPU, after it did not suffice."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
