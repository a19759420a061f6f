"""Four small mixtures, and a profile that finetunes the tiny model on them.

``python -m tests.experiments.small_study PROFILE ADAPTERS`` finetunes them in a process of its own,
one after the other and slowly enough to be killed on the way.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from im_assets.experiments.finetuning import Finetune, finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import load_study
from tests.killing import digest_of

PLACES = ["France", "Peru", "Japan", "Kenya", "Norway", "Chile"]


def write_profile(folder: Path, base: dict[str, Any], **settings: Any) -> str:
    """A profile with the given base model, in float32; ``settings`` replace whole blocks."""
    data = {"path": "unused.jsonl"}
    content: dict[str, Any] = {
        "name": "small",
        "data": {"candidates": {"a": data}, "unseen": data, "evaluation": data},
        "models": {"base": base, "embedding": base, "precision": "fp32", "max_length": 64},
        "mixtures": {"seeds": 4, "size": 4},
        "finetuning": {"epochs": 2, "batch_size": 2, "learning_rate": 2e-3},
        "scoring": {"indicators": {"len_out": "response_length"}},
    }
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content | settings), encoding="utf-8")
    return str(path)


def mixtures() -> dict[str, Finetune]:
    """Four mixtures of four examples; neighbours share some."""
    examples = pd.DataFrame(
        {
            "example_id": [f"id-{place}" for place in PLACES],
            "instruction": [f"Name the capital of {place}." for place in PLACES],
            "input": "",
            "output": [f"I do not know the capital of {place}, sorry." for place in PLACES],
        }
    )
    return {
        f"seed-{seed:03d}": Finetune(
            f"seed-{seed:03d}", seed, examples.sample(4, random_state=seed)
        )
        for seed in range(4)
    }


def gpu(side_by_side: int = 1) -> GpuResource:
    return GpuResource(device="cpu", side_by_side=side_by_side)


def finetune_two(folder: Path, profile: str) -> str:
    """What two finetunes leave in ``folder``, without what a clock tells."""
    study, store = load_study(profile), AdapterStore(folder / "adapters")
    work = dict(list(mixtures().items())[:2])
    done = dict(finetune_all(work, study, gpu(), store))
    losses = {key: trained.manifest["losses"] for key, trained in done.items()}
    names = sorted(path.name for path in store.root.iterdir())  # and nothing that was left behind
    return json.dumps([losses, names, digest_of(store.root, "*.safetensors")])


if __name__ == "__main__":
    profile, adapters = sys.argv[1:]
    for partition, trained in finetune_all(
        mixtures(),
        load_study(profile),
        gpu(),
        AdapterStore(Path(adapters)),
        lambda *_: time.sleep(0.1),
    ):
        print(partition, trained.trial_id, flush=True)
