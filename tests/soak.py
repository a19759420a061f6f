"""A small study that lives for a while: ``python -m tests.soak [--minutes 30] [--seed 0]``.

Files land (good, bad, twice), rows leave a source's file, ids are withdrawn, all or some of the
jobs run, two at once, any process may be killed at any moment, and readers read all the while. In
the end the study is run to its end, and its warehouse is compared with one that is computed from
scratch from what is left: the files that there are, the pool's history and the series of seeds.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import yaml

from im_resources.study import PROJECT_ROOT, Study, load_study
from im_resources.warehouse import Warehouse
from tests.language_model.models import write_model
from tests.study import write_profile

READER = """
import sys, time
from pathlib import Path
from im_resources.warehouse import Warehouse
warehouse = Warehouse(Path(sys.argv[1]))
reads = 0
while not Path(sys.argv[2]).exists():
    names = warehouse.query("SELECT table_name FROM duckdb_tables()")["table_name"]
    for name in sorted(names):
        if warehouse.has_table(name):
            warehouse.read_table(name)
            reads += 1
    time.sleep(0.2)
print(reads)
"""
# When and where a table was made; and what is made of numbers that are equal to rounding only.
INCIDENTAL = ["seconds", "folder", "since_version", "rule_id", "document", "formula"]
POOLS = ["eval_set", "candidate_datasets", "dolly_dataset", "quarantined_examples"]
RESULTS = ["mixed_samples", "finetuned_adapters", "eval_losses", "example_scores", "dolly_scores",
           "base_losses", "indicator_table", "quality_rule", "dolly_selection"]  # fmt: skip


class Soak:
    """The study, and what is done to it."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.random = home, random.Random(seed)
        self.landing, self.gone = home / "landing", home / "gone.txt"
        self.gone.write_text("", encoding="utf-8")
        self.landing.mkdir()
        self.profile = write_profile(
            home,
            write_model(home / "model"),
            "soak",
            landing={"folder": str(self.landing), "settle_seconds": 1},
            refit={"new_seeds": 2},
        )
        content = yaml.safe_load(self.profile.read_text(encoding="utf-8"))
        content["data"]["withdrawn"] = {"path": str(self.gone), "forget": True}
        self.profile.write_text(yaml.safe_dump(content), encoding="utf-8")
        self.counts: Counter[str] = Counter()
        self.landed: list[tuple[str, str]] = []
        self.versions: dict[int, set[str]] = {}

    @property
    def study(self) -> Study:
        return load_study(str(self.profile))

    def environment(self, home: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "DAGSTER_STATE"}
        own = {"IM_PROFILE": str(self.profile), "IM_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        return kept | own | {"DAGSTER_HOME": str(PROJECT_ROOT)}

    def start(self, *jobs: str, home: Path | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "im_assets.run", *jobs],
            cwd=PROJECT_ROOT,
            env=self.environment(home or self.home),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *jobs: str, home: Path | None = None) -> str:
        """Run jobs; their output. A run that fails ends the soak: nothing here may make it."""
        process = self.start(*jobs, home=home)
        output, _ = process.communicate(timeout=1200)
        if process.returncode:
            raise SystemExit(f"{jobs} failed:\n{output}")
        return output

    # -- what is done -------------------------------------------------------------------------

    def land(self) -> None:
        source = self.random.choice(["capitals", "weather", "food", "dolly"])
        number = self.random.randrange(10**6)
        kind = "response" if source == "dolly" else "output"
        rows = [
            {
                "instruction": f"What of {number}, {i}?",
                kind: f"It is {number * (i + 3)}. " * (1 + i),
            }
            for i in range(self.random.randint(1, 5))
        ]
        self._drop(source, f"new-{number}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def land_bad(self) -> None:
        bad = self.random.choice(["", "{", "\x00\x01", '{"wrong": 1}\n', "[" * 50_000])
        self._drop("food", f"bad-{self.random.randrange(10**6)}.jsonl", bad)

    def land_again(self) -> None:
        if self.landed:
            source, text = self.random.choice(self.landed)
            self._drop(source, f"again-{self.random.randrange(10**6)}.jsonl", text)

    def _drop(self, source: str, name: str, text: str) -> None:
        folder = self.landing / source
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        self.landed.append((source, text))

    def drop_rows(self) -> None:
        path = Path(str(self.study.data.candidates["capitals"].path))
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if len(lines) > 5:
            lines.pop(self.random.randrange(len(lines)))
            path.write_text("".join(lines), encoding="utf-8")

    def withdraw(self) -> None:
        warehouse = Warehouse(self.study.warehouse)
        if warehouse.has_table("candidate_datasets"):
            pool = warehouse.read_table("candidate_datasets")
            if len(pool) > 25:
                gone = self.random.choice(sorted(pool["example_id"]))
                with self.gone.open("a", encoding="utf-8") as file:
                    file.write(f"{gone}\n")

    def finish(self) -> None:
        self.run("data", "study")
        self.remember()

    def seeds_only(self) -> None:
        self.run("data")
        self.remember()

    def two_at_once(self) -> None:
        both = [self.start("data", "study"), self.start("data", "study")]
        for process in both:
            process.communicate(timeout=1200)

    def kill(self) -> None:
        process = self.start("data", "study")
        time.sleep(self.random.uniform(0.5, 25))
        if process.poll() is None:
            self.counts["kills that hit a live run"] += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def remember(self) -> None:
        """What the pool's newest version holds, for the comparison with its history."""
        from im_assets.candidates.versions import HISTORY, current_version

        warehouse = Warehouse(self.study.warehouse)
        version = current_version(warehouse.read_table(HISTORY))
        self.versions[version] = set(warehouse.read_table("candidate_datasets")["example_id"])

    def round(self) -> None:
        """One thing done to the study, by chance."""
        actions = {
            self.land: 5, self.land_bad: 1, self.land_again: 1, self.drop_rows: 1,
            self.withdraw: 1, self.seeds_only: 1, self.finish: 2, self.two_at_once: 1, self.kill: 5,
        }  # fmt: skip
        [action] = self.random.choices(list(actions), list(actions.values()))
        action()
        self.counts[action.__name__] += 1

    # -- what has to hold ---------------------------------------------------------------------

    def compare(self) -> None:
        """Raises AssertionError where the warehouse differs from one computed from scratch."""
        from im_assets.candidates.versions import HISTORY, held_in

        soaked = Warehouse(self.study.warehouse)
        history = soaked.read_table(HISTORY)
        for version, ids in self.versions.items():
            assert set(held_in(history, version)["example_id"]) == ids, f"version {version}"
        scratch = self.home / "scratch"
        folder = scratch / self.study.name
        folder.mkdir(parents=True)
        shutil.copytree(self.study.folder / "landed", folder / "landed", dirs_exist_ok=True)
        fresh = Warehouse(folder / "warehouse.duckdb")
        fresh.replace_table("landed_files", soaked.read_table("landed_files"))
        self.run("data", home=scratch)
        for name in POOLS:
            same(fresh.read_table(name), soaked.read_table(name), name)
        # The history, and which seeds belong to which version, are what cannot be made again.
        for name in (HISTORY, "mixture_seeds", "candidate_datasets"):
            fresh.replace_table(name, soaked.read_table(name))
        self.run("study", home=scratch)
        seeds = soaked.read_table("mixture_seeds")
        active = set(seeds.loc[~seeds["retired"], "seed"])
        for name in RESULTS:
            found, wanted = fresh.read_table(name), soaked.read_table(name)
            if "seed" in wanted:
                wanted = wanted[wanted["seed"].isin(active)]
            same(found, wanted, name)


def same(found: pd.DataFrame, wanted: pd.DataFrame, name: str) -> None:
    """Equal, whatever the order of the rows; measured numbers to the rounding of a batch."""
    pd.testing.assert_frame_equal(_ordered(found), _ordered(wanted), rtol=1e-5, obj=name)
    print(f"  {name}: {len(found)} rows are the same", flush=True)


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    kept = frame[sorted(str(column) for column in frame if column not in INCIDENTAL)]
    exact = [str(c) for c in kept if not pd.api.types.is_float_dtype(kept[c])]
    kept = kept.astype(dict.fromkeys(exact, str))
    return kept.sort_values(exact, ignore_index=True)


def main() -> None:
    """Soak, finish, compare; print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ["IM_HOME"] = str(home)
    soak = Soak(home, arguments.seed)
    soak.finish()
    over = home / "over"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(soak.study.warehouse), str(over)],
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    end, rounds = time.monotonic() + 60 * arguments.minutes, 0
    while time.monotonic() < end:
        soak.round()
        rounds += 1
        print(f"{rounds} rounds: {dict(soak.counts)}", flush=True)
    soak.finish()
    over.touch()
    reads = [int(reader.communicate()[0] or -1) for reader in readers]
    assert all(reader.returncode == 0 for reader in readers), "a reader failed"
    print(f"{rounds} rounds, {len(soak.versions)} versions seen, tables read {reads}")
    soak.compare()
    print(f"the same as from scratch; the study is in {home}")


if __name__ == "__main__":
    main()
