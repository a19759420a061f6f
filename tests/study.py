"""A whole study in seconds: small texts, a tiny random model, every asset of the real definitions.

What a user does with the platform (materialize, change a setting, take a file away) is done with it
in a process, and what the catalog then says is looked at.
"""

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from im_assets.common.partitions import range_tags
from im_assets.definitions import definitions
from im_assets.mixtures.partitions import sync_study
from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse

PLACES = ["France", "Peru", "Japan", "Kenya", "Norway", "Chile", "Ghana", "Nepal", "Cuba", "Oman"]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
KINDS = {
    "capitals": "The capital of {place} is a fine city with many old houses near its river.",
    "weather": "It rains.",
    "food": "People in {place} like to cook with fresh things from the market, every single day.",
}


def valleys(count: int) -> list[dict[str, str]]:
    """Rows that no source of the study has."""
    return [
        {"instruction": f"What grows in valley {i}?", "output": f"Figs, {i} kinds of them."}
        for i in range(count)
    ]


def history(folder: Path) -> dg.DagsterInstance:
    """A history in this folder, which stays when it is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    return dg.DagsterInstance.local_temp(str(folder), {"telemetry": {"enabled": False}})


def write_data(folder: Path) -> dict[str, Any]:
    """Three candidate sources, an unseen pool and an evaluation set; the profile's ``data``."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {}
    for kind, answer in KINDS.items():
        rows = [
            {
                "instruction": f"Tell me about {kind} of {place}.",
                "output": answer.format(place=place),
            }
            for place in PLACES
        ]
        rows = [r | {"output": f"{r['output']} Number {i}."} for i, r in enumerate(rows)]
        sources[kind] = {"path": str(_write(folder / f"{kind}.jsonl", rows))}
    unseen = [
        {
            "instruction": f"Why {word}?",
            "context": "",
            "response": f"Because {word} is {i} " * (1 + i % 5),
        }
        for i, word in enumerate(f"reason{n}" for n in range(24))
    ]
    evaluation = [
        {"instruction": f"What is thing {i}?", "outputs": [f"It is {i}.", f"Thing {i}, of course."]}
        for i in range(6)
    ]
    return {
        "candidates": sources,
        "unseen": {"path": str(_write(folder / "unseen.jsonl", unseen)), "format": "dolly"},
        "evaluation": {
            "path": str(_write(folder / "evaluation.jsonl", evaluation)),
            "outputs": "outputs",
        },
    }


def write_profile(folder: Path, model: Path, name: str = "tiny", **blocks: Any) -> Path:
    """A profile of such a study; ``blocks`` replace whole blocks, or keys of one (a mapping)."""
    source = {"path": str(model)}
    profile: dict[str, Any] = {
        "name": name,
        "data": write_data(folder / "data"),
        "models": {"base": source, "embedding": source, "precision": "fp32", "max_length": 48},
        "mixtures": {"seeds": 8, "size": 6},
        "finetuning": {"epochs": 1, "batch_size": 3, "learning_rate": 2e-3},
        "scoring": {
            "score": "all",
            "indicators": {
                "len_in": "instruction_length",
                "len_out": "response_length",
                "ppl": "perplexity",
            },
        },
        "rule": {"bootstrap": 10, "permutations": 19, "choose": "stepwise", "p_enter": 0.9,
                 "p_remove": 0.95, "max_indicators": 2},
        # A rule of eight finetunes of random weights is one of chance, and is used all the same.
        "selection": {"size": 6, "when_chance": "select"},
    }  # fmt: skip
    for block, value in blocks.items():
        old = profile.get(block)
        if isinstance(value, Mapping) and isinstance(old, dict):
            profile[block] = {**old, **value}
        else:
            profile[block] = value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(copy.deepcopy(profile)), encoding="utf-8")
    return path


class Platform:
    """The definitions of one profile, and the instance that its runs go into."""

    def __init__(self, profile: Path, instance: dg.DagsterInstance) -> None:
        self.profile, self.instance = profile, instance

    @property
    def study(self) -> Study:
        return load_study(str(self.profile))

    @property
    def definitions(self) -> dg.Definitions:
        return definitions(self.study, str(self.profile))

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.study.warehouse)

    def change(self, **blocks: Any) -> None:
        """Edit the profile: a mapping changes keys of a block, None removes the block."""
        content = yaml.safe_load(self.profile.read_text(encoding="utf-8"))
        for block, value in blocks.items():
            if value is None:
                content.pop(block, None)
            elif isinstance(value, Mapping) and isinstance(content.get(block), dict):
                content[block] = {**content[block], **value}
            else:
                content[block] = value
        self.profile.write_text(yaml.safe_dump(content), encoding="utf-8")

    def run(self, job: str, keys: Sequence[str] | None = None) -> dg.ExecuteInProcessResult:
        """Run a job over all its partitions, or over the range of ``keys``."""
        sync_study(self.instance, self.study)
        found = self.definitions.resolve_job_def(job)
        if found.partitions_def and keys is None:
            keys = self._keys(found.partitions_def)
        return found.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            tags=range_tags(keys or ()),
            run_config=QUIET,
        )

    def run_study(self) -> dg.ExecuteInProcessResult:
        """The pools as they are now, then everything from mixtures to the selection."""
        result = self.run("data")
        return self.run("study") if result.success else result

    def run_all(self) -> None:
        """Every job of the study; each has to succeed."""
        for job in self.definitions.jobs or ():
            result = self.run(job.name)
            failed = [e.step_key for e in result.filter_events(lambda e: e.is_step_failure)]
            assert result.success, (job.name, failed)

    def materialize(
        self,
        *names: str,
        keys: Sequence[str] | None = None,
        checks: bool = True,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize these assets, with their checks, and nothing else; ``tags``: of the run."""
        sync_study(self.instance, self.study)
        definitions_ = self.definitions
        partitions = None
        graph = definitions_.resolve_asset_graph()
        for name in names:
            partitions = graph.get(dg.AssetKey(name)).partitions_def or partitions
        if partitions is not None and keys is None:
            keys = self._keys(partitions)
        selection: dg.AssetSelection = dg.AssetSelection.assets(*names)
        if not checks:  # but those that an asset makes itself come with it
            made = [a for a in definitions_.assets or () if isinstance(a, dg.AssetsDefinition)]
            own = [spec.key for a in made for spec in a.check_specs
                   if a.keys & {dg.AssetKey(name) for name in names}]  # fmt: skip
            selection = selection.without_checks() | dg.AssetSelection.checks(*own)
        job = dg.define_asset_job("some", selection=selection)
        loaded = dg.Definitions(
            assets=definitions_.assets,
            asset_checks=definitions_.asset_checks,
            resources=definitions_.resources,
            jobs=[job],
            executor=dg.in_process_executor,
        )
        return loaded.resolve_job_def("some").execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name) for name in names] if checks else None,
            tags={**range_tags(keys or ()), **(tags or {})},
            run_config=QUIET,
        )

    def _keys(self, partitions: dg.PartitionsDefinition) -> Sequence[str]:
        return partitions.get_partition_keys(dynamic_partitions_store=self.instance)

    def table(self, name: str) -> pd.DataFrame:
        return self.warehouse.read_table(name)

    def stale(self) -> set[str]:
        """The assets that the catalog shows as stale, any partition of them."""
        graph = self.definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(
            self.instance, graph, LoadingContextForTest(self.instance)
        )
        found = set()
        for key in graph.get_all_asset_keys():
            partitions = graph.get(key).partitions_def
            for partition in self._keys(partitions) if partitions else [None]:
                if resolver.get_status(key, partition) == StaleStatus.STALE:
                    found.add(key.to_user_string())
        return found


def copied(finished: tuple[Path, Path], to: Path) -> Path:
    """A copy of a finished study, to do something to: its profile. IM_HOME has to be ``to``.

    Args:
        finished: the study's home, and its profile in it.
    """
    home, profile = finished
    shutil.copytree(home, to)
    own = to / profile.name
    text = own.read_text(encoding="utf-8")
    own.write_text(text.replace(str(home / "data"), str(to / "data")), encoding="utf-8")
    return own


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
