"""Groups of finetunes on a GPU by way of Ray, against the same ones in a process of their own.

``python -m benchmarks.ray_gpu [--model FOLDER] [--finetunes 16] [--group-size 4]`` starts Postgres,
a head and a node with one GPU on this machine, finetunes the same sets in both ways over one base,
and prints wall seconds, their ratio, and how far apart the losses are. The peer is the platform's
own way on one machine; what is measured is what the cluster adds: a process and a loaded base for
each group (Ray gives a GPU to a new process), the way of the examples, and the way back.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from im_assets.experiments.finetuning import Finetune, finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.cluster.gpu import RayGpu
from im_resources.deployment.making import adapters_of
from im_resources.deployment.schema import Deployment
from im_resources.gpu import GpuResource
from im_resources.study import PROJECT_ROOT, load_study
from tests.cluster.nodes import RayCluster, ray_cluster
from tests.language_model.models import write_model
from tests.servers import PASSWORD, Postgres, postgres

SOURCES = ("careful", "howto", "terse", "rambling")


def main() -> None:
    """Print the comparison as JSON, a line a way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_gpu", description=__doc__)
    parser.add_argument("--model", type=Path, help="a base model's folder; default: a tiny one")
    parser.add_argument("--finetunes", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="examples of a set")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="im-ray-gpu-"))
    os.environ |= {"IM_HOME": str(folder / "home"), "PGPASSWORD": PASSWORD}
    model = chosen.model or write_model(folder / "model")
    study = load_study(_profile(folder, model, chosen.epochs))
    work = _finetunes(chosen.finetunes, chosen.size)
    gpus = 1 if chosen.device == "cuda" else 0
    with postgres() as database, ray_cluster(0, environment={"PGPASSWORD": PASSWORD}) as cluster:
        database.create("im")
        cluster.add("node", cpus=8, options=(f"--num-gpus={gpus}",))
        deployment = _deployment(folder, cluster, database, chosen.device, chosen.group_size)
        there = RayGpu.of(study, deployment)
        begun = time.perf_counter()
        spread = {
            key: trained.manifest
            for key, trained in finetune_all(work, study, there, adapters_of(study, deployment))
        }
        by_ray = time.perf_counter() - begun
        again = time.perf_counter()
        found = dict(finetune_all(work, study, there, adapters_of(study, deployment)))
        again = time.perf_counter() - again
    assert not any(trained.now for trained in found.values())
    begun = time.perf_counter()
    own = {
        key: trained.manifest
        for key, trained in finetune_all(
            work, study, GpuResource(device=chosen.device), AdapterStore(folder / "here")
        )
    }
    here = time.perf_counter() - begun
    apart = [
        abs(a - b)
        for key, manifest in spread.items()
        for a, b in zip(manifest["losses"], own[key]["losses"], strict=True)
    ]
    groups = -(-chosen.finetunes // chosen.group_size)
    print(
        json.dumps(
            {
                "finetunes": chosen.finetunes,
                "groups": groups,
                "tokens": sum(manifest["tokens"] for manifest in own.values()),
                "seconds in this process": round(here, 2),
                "seconds by Ray": round(by_ray, 2),
                "ratio": round(by_ray / here, 2),
                "seconds more a group": round((by_ray - here) / groups, 2),
                "seconds to find all finished": round(again, 2),
                "largest difference of a step's loss": max(apart),
                "same trials": sorted(m["fingerprint"] for m in spread.values())
                == sorted(m["fingerprint"] for m in own.values()),
            },
            indent=1,
        )
    )


def _profile(folder: Path, model: Path, epochs: int) -> str:
    data, source = {"path": "unused.jsonl"}, {"path": str(model)}
    content: dict[str, Any] = {
        "name": "ray_gpu",
        "data": {"candidates": {"a": data}, "unseen": data, "evaluation": data},
        "models": {"base": source, "embedding": source, "precision": "bf16", "max_length": 256},
        "finetuning": {"epochs": epochs, "batch_size": 8},
        "scoring": {"indicators": {"len_out": "response_length"}},
    }
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def _finetunes(number: int, size: int) -> dict[str, Finetune]:
    data = PROJECT_ROOT / "sample_data"
    rows = pd.concat([pd.read_json(data / f"{name}.jsonl", lines=True) for name in SOURCES])
    rows = rows.fillna("").reset_index(drop=True)
    rows.insert(0, "example_id", [f"example-{k}" for k in range(len(rows))])
    columns = ["example_id", "instruction", "input", "output"]
    return {
        f"seed-{seed:03d}": Finetune(
            f"seed-{seed:03d}", seed, rows[columns].sample(size, random_state=seed)
        )
        for seed in range(number)
    }


def _deployment(
    folder: Path, cluster: RayCluster, database: Postgres, device: str, group_size: int
) -> Deployment:
    return Deployment.model_validate(
        {
            "name": "ray_gpu",
            "executor": {
                "kind": "ray",
                "address": cluster.address,
                "device": device,
                "gpus": 1 if device == "cuda" else 0,
                "cpus": 4,
                "group_size": group_size,
            },
            "warehouse": {
                "kind": "ducklake",
                "catalog": database.address("im"),
                "data": str(folder / "tables"),
            },
            "files": str(folder / "files"),
        }
    )


if __name__ == "__main__":
    main()
