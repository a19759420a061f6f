"""One study on this machine and on a cluster whose machines share a catalog and a bucket alone.

``python -m tests.cluster.same_numbers --profile FILE`` runs both and prints how far apart they are.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from im_resources.deployment import load_deployment
from im_resources.deployment.making import warehouse_of
from im_resources.study import PROJECT_ROOT, Study, load_study
from im_resources.warehouse import Warehouse
from tests.cluster.nodes import RayCluster, ray_cluster
from tests.remote.proxy import Proxy, proxy
from tests.servers import PASSWORD, Postgres, object_store, postgres

During = Callable[[subprocess.Popen[bytes]], object]
# What a clock, a place or a machine tells, and not the study.
ELSEWHERE = {"seconds", "folder", "evaluated_seconds", "registered_at", "rule_seconds",
             "training_seconds"}  # fmt: skip
# Of what is planned and paid for: rates of the machine at hand.
OF_THE_MACHINE = {"study_plan", "validation_costs", "costs", "warehouse_version", "run_costs"}

# To the last bit: what is drawn, what is scored, what is selected.
EXACT = ("candidate_datasets", "mixed_samples", "example_scores", "score_cache", "indicator_table",
         "dolly_scores", "dolly_indicators", "dolly_selection")  # fmt: skip
LOSSES = ("eval_losses", "base_losses", "eval_loss_cache")


@dataclass
class Place:
    """A catalog and a bucket's folder of a cluster's services, and a machine that uses them."""

    name: str
    services: "Beyond"

    @property
    def home(self) -> Path:
        """The folder of the machine that sends its work to the cluster."""
        return self.services.folder / self.name

    @property
    def variables(self) -> dict[str, str]:
        """Of that machine; the deployment is written anew, for a head may be another one."""
        deployment = {
            "name": "cluster",
            "executor": {
                "kind": "ray", "address": self.services.cluster.address, "device": "cpu", "gpus": 0,
            },
            "warehouse": {
                "kind": "ducklake",
                "catalog": self.services.database.address(self.name),
                "data": f"s3://mining/{self.name}/tables",
            },
            "files": f"s3://mining/{self.name}/files",
        }  # fmt: skip
        path = self.services.folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(deployment), encoding="utf-8")
        return {**self.services.secrets, "IM_DEPLOYMENT": str(path)}

    def run(self, profile: str, *jobs: str, during: During | None = None) -> tuple[int, str]:
        """``python -m im_assets.run`` there: see ``run``."""
        return run(self.home, profile, *jobs, during=during, **self.variables)

    @contextmanager
    def as_driver(self) -> Iterator[None]:
        """This process as that machine."""
        own = {**self.variables, "IM_HOME": str(self.home)}
        kept = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            yield
        finally:
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def apart(self, here: Warehouse, study: Study) -> pd.DataFrame:
        """How far the study's tables in the lake are from those of another place."""
        with self.as_driver():
            return apart(here, warehouse_of(study, load_deployment()))


@dataclass
class Beyond:
    """A head and workers of one core, each with its own folders; a Postgres, an object store."""

    folder: Path
    cluster: RayCluster
    database: Postgres
    store: Proxy
    secrets: dict[str, str]

    def place(self, name: str) -> Place:
        """One with nothing in it."""
        self.database.create(name)
        return Place(name, self)


@contextmanager
def beyond(folder: Path, workers: int = 3) -> Iterator[Beyond]:
    """The services, gone afterwards."""
    with ExitStack() as opened:
        database = opened.enter_context(postgres())
        secrets = {**opened.enter_context(object_store()), "PGPASSWORD": PASSWORD}
        store = opened.enter_context(proxy(secrets["AWS_ENDPOINT_URL"]))
        secrets["AWS_ENDPOINT_URL"] = store.url
        cluster = opened.enter_context(ray_cluster(workers, environment=secrets))
        yield Beyond(folder, cluster, database, store, secrets)


def run(
    home: Path,
    profile: str,
    *jobs: str,
    during: During | None = None,
    **variables: str,
) -> tuple[int, str]:
    """``python -m im_assets.run`` with a folder of its own: its exit code, and what it printed.

    Args:
        during: called with the process once it runs.
    """
    own = {k: v for k, v in os.environ.items() if not k.startswith(("IM_", "DAGSTER_"))}
    kept = {k: os.environ[k] for k in ("IM_MODEL_CACHE", "IM_DATA_DIR") if k in os.environ}
    paths = {"IM_HOME": str(home), "IM_PROFILE": profile, "DAGSTER_HOME": str(PROJECT_ROOT)}
    log = log_of(home, profile)
    home.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "im_assets.run", *jobs],
            cwd=PROJECT_ROOT, env=own | kept | paths | variables, stdout=printed, stderr=printed,
        )  # fmt: skip
        try:
            if during is not None:
                during(process)
            code = process.wait()
        finally:
            process.kill()
    return code, log.read_text(encoding="utf-8", errors="replace")


def log_of(home: Path, profile: str) -> Path:
    """Where what ``run`` prints is kept while it runs."""
    return home / f"{Path(profile).stem}.log"


def apart(here: Warehouse, there: Warehouse) -> pd.DataFrame:
    """How far apart each column of each table is: 0 where all values are the same, else the largest
    difference of a number, inf where anything else differs."""
    mine, theirs = set(here.tables()) - OF_THE_MACHINE, set(there.tables()) - OF_THE_MACHINE
    rows = [(table, "", np.inf) for table in sorted(mine ^ theirs)]
    for table in sorted(mine & theirs):
        a, b = _ordered(here.read_table(table)), _ordered(there.read_table(table))
        if list(a.columns) != list(b.columns) or len(a) != len(b):
            rows.append((table, "", np.inf))
            continue
        rows += [(table, column, _distance(a[column], b[column])) for column in a.columns]
    return pd.DataFrame(rows, columns=["table", "column", "apart"])


def require_same(found: pd.DataFrame) -> None:
    """AssertionError unless ``apart`` found what two machines may differ by: nothing of what is
    exact, 1e-6 of a loss, 1e-9 of all else."""
    assert {*EXACT, *LOSSES, "quality_rule"} <= set(found["table"])
    allowed = found["table"].map({**dict.fromkeys(EXACT, 0.0), **dict.fromkeys(LOSSES, 1e-6)})
    beyond_it = found[found["apart"] > allowed.fillna(1e-9)]
    assert beyond_it.empty, beyond_it.to_string(index=False)


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """By what is a key of most tables: caches are written in the order in which work ended."""
    frame = frame[sorted(frame.columns.difference(list(ELSEWHERE)))]
    words = [c for c in frame.columns if not pd.api.types.is_float_dtype(frame[c])]
    plain = [c for c in words if frame[c].map(np.isscalar).all() or frame[c].isna().all()]
    shown = frame[plain].astype("string").fillna("")
    order = shown.sort_values(plain, kind="stable").index if plain else frame.index
    return frame.loc[order].reset_index(drop=True)


def _distance(a: pd.Series, b: pd.Series) -> float:
    if pd.api.types.is_float_dtype(a) and pd.api.types.is_float_dtype(b):
        x, y = a.to_numpy(float), b.to_numpy(float)
        if (np.isnan(x) != np.isnan(y)).any():
            return float("inf")
        gaps = np.abs(x - y)[~np.isnan(x)]
        return float(gaps.max()) if len(gaps) else 0.0
    return 0.0 if all(map(_same, a, b)) else float("inf")


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if a is None or b is None or a is pd.NA or b is pd.NA:
        return (a is None or a is pd.NA) and (b is None or b is pd.NA)
    return bool(a == b) or (a != a and b != b)


def main() -> None:
    """Print what differs, and the seconds of both."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.same_numbers")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--jobs", nargs="*", default=[])
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="im-same-"))
    folder.mkdir(exist_ok=True)
    begun = time.monotonic()
    code, said = run(folder / "here", chosen.profile, *chosen.jobs)
    print(f"here: exit {code} after {time.monotonic() - begun:.0f} s\n{said[-600:]}", flush=True)
    with beyond(folder) as services:
        there = services.place("im")
        begun = time.monotonic()
        code, said = there.run(chosen.profile, *chosen.jobs)
        print(
            f"there: exit {code} after {time.monotonic() - begun:.0f} s\n{said[-600:]}", flush=True
        )
        study = load_study(chosen.profile)
        found = there.apart(Warehouse(folder / "here" / study.name / "warehouse.duckdb"), study)
        found.to_csv(folder / "apart.csv", index=False)
        differing = found[found["apart"] > 0]
        print(f"{found['table'].nunique()} tables, {len(found)} columns; these differ:")
        print(differing.to_string(index=False))


if __name__ == "__main__":
    main()
