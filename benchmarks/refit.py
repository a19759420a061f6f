"""Seconds of a refit after new rows, next to nothing but their scoring and the new finetunes.

``python -m benchmarks.refit [--profile demo] [--seeds 78] [--new 8] [--size 32] [--home DIR]``

A study is run on nine tenths of each candidate source of the profile. Then the last tenth is added
and the refit is timed: ``python -m im_assets.run data study``, which makes the next version of the
pool, draws new mixtures from it and fits the rule anew. The peer is a process that does what the
new data asks for, and nothing else: it scores the new rows, finetunes on the new mixtures and
evaluates them, by the same functions, in an empty store. Both load the models once. What the refit
computed is counted: anything but the new rows and mixtures ends in an error.
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import pandas as pd
import yaml

from im_resources.study import PROJECT_ROOT, Study, load_study, resolve_path

GOAL = 1.15


def main() -> None:
    """Run the study and the refit, then the peer; print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--seeds", type=int, default=78)
    parser.add_argument("--new", type=int, default=8)
    parser.add_argument("--size", type=int, default=32, help="examples in a mixture")
    parser.add_argument("--home", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer is not None:
        peer(load_study(os.environ["IM_PROFILE"]), arguments.peer)
        return
    home = (arguments.home or Path(tempfile.mkdtemp(prefix="refit-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    profile, held_back = write_profile(home, arguments)
    os.environ |= {"IM_PROFILE": str(profile), "IM_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    study = load_study(str(profile))
    print(f"{study.mixtures.seeds} mixtures of {study.mixtures.size}, in {home}", flush=True)
    print(f"the study took {timed('im_assets.run', 'data', 'study'):.1f} s", flush=True)
    before = tables(study)
    for path, lines in held_back.items():
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    refit = timed("im_assets.run", "data", "study")
    check(before, tables(study), arguments.new)
    alone = timed("benchmarks.refit", "--peer", str(home / "peer"))
    ratio = refit / alone
    print(
        f"refit {refit:.1f} s, new rows' scoring and {arguments.new} finetunes and evaluations "
        f"alone {alone:.1f} s: ratio {ratio:.3f} (goal: at most {GOAL})"
    )


def write_profile(home: Path, arguments: argparse.Namespace) -> tuple[Path, dict[Path, list[str]]]:
    """The profile on nine tenths of its candidates; the last lines of each file, held back."""
    original = load_study(arguments.profile)
    candidates, held_back = {}, {}
    for name, source in original.data.candidates.items():
        file = resolve_path(str(source.path))
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as opened:
            lines = list(islice(opened, source.limit))
        path = home / f"{name}.jsonl"
        cut = len(lines) - len(lines) // 10
        path.write_text("".join(lines[:cut]), encoding="utf-8")
        held_back[path] = lines[cut:]
        own = source.model_dump(mode="json", exclude_none=True, exclude={"limit"})
        candidates[name] = {**own, "path": str(path)}
    content = {
        "extends": arguments.profile,
        "name": "refit",
        "data": {"candidates": candidates},
        "mixtures": {"seeds": arguments.seeds, "size": arguments.size},
        "refit": {"new_seeds": arguments.new},
        "scoring": {"score": "all"},
        "univariate": None,
        "validation": None,
        "judge": None,
    }
    profile = home / "refit.yaml"
    profile.write_text(yaml.safe_dump(content), encoding="utf-8")
    return profile, held_back


def timed(module: str, *arguments: str) -> float:
    """Seconds of a process, which has to succeed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=PROJECT_ROOT, check=True)
    return time.perf_counter() - start


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """What was computed so far."""
    from im_resources.warehouse import Warehouse

    warehouse = Warehouse(study.warehouse)
    names = ("score_cache", "eval_loss_cache", "finetuned_adapters", "candidate_datasets")
    return {name: warehouse.read_table(name) for name in names}


def check(before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame], new: int) -> None:
    """Raises AssertionError when the refit computed more than the new rows and mixtures ask for."""
    pool = after["candidate_datasets"]
    rows = set(pool["example_id"]) - set(before["candidate_datasets"]["example_id"])
    scored = after["score_cache"]["example_id"].value_counts()
    scored = scored.sub(before["score_cache"]["example_id"].value_counts(), fill_value=0)
    assert set(scored[scored > 0].index) == rows, "other rows than the new ones were scored"
    old = before["finetuned_adapters"]["trial_id"]
    trials = set(after["finetuned_adapters"]["trial_id"]) - set(old)
    assert len(trials) == new, f"{len(trials)} finetunes instead of {new}"
    keys = set(after["eval_loss_cache"]["fingerprint"]) - set(
        before["eval_loss_cache"]["fingerprint"]
    )
    assert len(keys) == new, f"{len(keys)} evaluations instead of {new}"
    print(f"the refit scored {len(rows)} rows and finetuned on {new} mixtures, and no others")


def peer(study: Study, folder: Path) -> None:
    """Score the newest rows, finetune on the newest mixtures and evaluate them, from nothing."""
    from im_assets.experiments.evaluation import evaluated, evaluation_rows
    from im_assets.experiments.finetuning import finetune_all, finetunes
    from im_assets.mixtures.experiment import mixture_experiment
    from im_assets.scoring.batch import Models
    from im_assets.scoring.registry import chosen
    from im_assets.scoring.scorer import score_missing
    from im_resources.adapter_store import AdapterStore
    from im_resources.gpu import GpuResource
    from im_resources.warehouse import Warehouse

    done, empty = Warehouse(study.warehouse), Warehouse(folder / "peer.duckdb")
    gpu, store = GpuResource(), AdapterStore(folder / "adapters")
    pool, samples = done.read_table("candidate_datasets"), done.read_table("mixed_samples")
    newest = pool["since_version"].max()
    new = samples[samples["pool_version"] == newest]
    rows = pool[pool["since_version"] == newest]
    score_missing(rows, chosen(study.scoring), Models.of(study, gpu), empty)
    work = finetunes(new, pool, mixture_experiment(study))
    trials = {key: t.trial_id for key, t in finetune_all(work, study, gpu, store)}
    evaluation = evaluation_rows(done.read_table("eval_set"), study.evaluation)
    evaluated(trials, evaluation, study, gpu, store, empty)


if __name__ == "__main__":
    main()
