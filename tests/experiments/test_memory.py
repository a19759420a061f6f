"""Out of memory ends in one line that names the settings to lower."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from im_resources.language_model.memory import OutOfMemoryError, enough_memory
from im_resources.study import PROJECT_ROOT
from tests.experiments.small_study import write_profile

# With the base loaded, the process may grow by 300 MB: far too little for long texts.
FINETUNES = """
import resource, sys
import psutil
from pathlib import Path
from im_assets.experiments.finetuning import finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.study import load_study
from tests.experiments.small_study import gpu, mixtures

study, device = load_study(sys.argv[1]), gpu()
device.base_model(study)
work = {"seed-000": mixtures()["seed-000"]}
work["seed-000"].examples["output"] = "a long answer, word after word, " * 400
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
list(finetune_all(work, study, device, AdapterStore(Path(sys.argv[2]))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to RLIMIT_AS")
def test_a_finetune_that_does_not_fit_says_what_to_lower(tmp_path: Path, tiny_folder: Path) -> None:
    base = {"path": str(tiny_folder)}
    models = {"base": base, "embedding": base, "precision": "fp32", "max_length": 1024}
    profile = write_profile(tmp_path, base, models=models, finetuning={"batch_size": 4})
    adapters = tmp_path / "adapters"
    done = subprocess.run(
        [sys.executable, "-c", FINETUNES, profile, str(adapters)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "the machine's memory did not suffice for finetuning seed-000: lower" in last
    assert "finetuning.batch_size (now 4), or models.max_length (now 1024)" in last
    assert list(adapters.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (MemoryError(), "machine"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "GPU"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 GB"),
            "machine",
        ),
        (OSError(12, "Cannot allocate memory"), "machine"),
    ],
)
def test_what_allocators_refuse_is_out_of_memory(error: Exception, where: str) -> None:
    with (
        pytest.raises(
            OutOfMemoryError, match=rf"the {where}'s memory .* scoring: lower a \(now 8\)"
        ),
        enough_memory("scoring", {"a": 8}),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("scoring", {"a": 8}):
        raise RuntimeError("shapes do not match")
