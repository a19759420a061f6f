"""A process keeps the memory it frees, and its idle threads sleep, whoever started it."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
{first}
import torch
def step():
    return torch.empty(16_000_000).fill_(1.0).sum().item()
for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str, **variables: str) -> int:
    """Pages that twenty uses of 64 MB fault in, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | variables
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(first=first)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    assert 4 * faults("import im_resources") < faults("")


def test_what_a_user_has_set_stays() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os, im_resources; print(os.environ['OMP_WAIT_POLICY'])"],
        env={**os.environ, "OMP_WAIT_POLICY": "ACTIVE"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "ACTIVE"
