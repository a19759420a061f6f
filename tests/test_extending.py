"""Every example of docs/extending.md, run as its reader would: a file beside their own profile.

Each section's files are written into a folder, its profile lines go into a small study's profile,
and the platform is used from there. What a section shows has a test of its name here.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

from im_assets.candidates.format_registry import FORMATS
from im_assets.experiments.measures import MEASURES
from im_assets.experiments.trainers import TRAINERS
from im_assets.scoring.batch import Models
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import BACKENDS, set_level
from im_assets.selection.choosing import choose
from im_assets.selection.pool import pool_indicators
from im_assets.selection.registry import STRATEGIES
from im_resources.gpu import GpuResource
from im_resources.language_model.prompts import encode
from im_resources.language_model.template_registry import TEMPLATES, template_key
from im_resources.study import PROJECT_ROOT, Study
from im_resources.warehouse import Warehouse
from tests.language_model.models import write_model
from tests.registries import isolate
from tests.selection.pools import small_pool
from tests.study import Platform

PAGE = PROJECT_ROOT / "docs" / "extending.md"
TRIALS = ("eval_set", "candidate_datasets", "mixture_seeds", "mixed_samples", "finetuned_adapters",
          "base_losses", "eval_losses")  # fmt: skip
ROWS = 12  # of each source


@dataclass(frozen=True)
class Section:
    """One example of the page: its files by name, and its profile lines."""

    files: dict[str, str]
    profile: dict[str, Any]


def sections() -> dict[str, Section]:
    """The page's sections that show profile lines, by heading."""
    found = {}
    for part in PAGE.read_text("utf-8").split("\n## ")[1:]:
        blocks = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
        profile = [yaml.safe_load(text) for kind, _, text in blocks if kind == "yaml"]
        if profile:
            files = {name: text for kind, name, text in blocks if name}
            assert len(profile) == 1
            assert len([name for name in files if name.endswith(".py")]) <= 1
            found[part.splitlines()[0]] = Section(files, profile[0])
    return found


SECTIONS = sections()


@dataclass(frozen=True)
class Tried:
    """A study with one example of the page in it."""

    platform: Platform
    folder: Path

    @property
    def study(self) -> Study:
        return self.platform.study

    def materialize(self, *names: str) -> dict[str, pd.DataFrame]:
        """Materialize the assets, all their partitions, and give their tables."""
        assert self.platform.materialize(*names).success
        return {name: self.warehouse.read_table(name) for name in names}

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.study.warehouse)

    @property
    def models(self) -> Models:
        return Models.of(self.study, GpuResource(device="cpu", side_by_side=1))


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What an example imports and registers is gone after it."""
    for registry in (BACKENDS, STRATEGIES, FORMATS, TEMPLATES, MEASURES, TRAINERS):
        isolate(registry, monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == tmp_path:
            del sys.modules[name]


def write_data(folder: Path) -> None:
    """The demo's data in small, with an id and a score of the user's own in each row."""
    for name in ("careful", "terse", "unseen"):
        lines = (PROJECT_ROOT / "sample_data" / f"{name}.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines[:ROWS]]
        rows = [row | {"id": f"{name}-{i}", "quality_score": i / 4} for i, row in enumerate(rows)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def small_profile(base: Path) -> dict[str, Any]:
    profile: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "profiles/demo.yaml").read_text())
    candidates = {name: {"path": f"${{MY_DATA}}/{name}.jsonl"} for name in ("careful", "terse")}
    unseen = {"dolly": {"path": "${MY_DATA}/unseen.jsonl", "format": "dolly"}}
    profile["data"] |= {"candidates": candidates, "unseen": unseen}
    profile["models"] |= {"base": {"path": str(base)}, "precision": "fp32"}
    profile["scoring"]["indicators"] = {"len_out": "response_length", "mtld": "mtld"}
    profile["mixtures"] = {"seeds": 4, "size": 5}
    return profile


def with_lines(profile: dict[str, Any], lines: dict[str, Any]) -> dict[str, Any]:
    """The profile with lines added where they belong."""
    for key, value in lines.items():
        inner = profile.get(key)
        nested = isinstance(value, dict) and isinstance(inner, dict)
        profile[key] = with_lines(dict(inner or {}), value) if nested else value
    return profile


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def tried(tmp_path: Path, base: Path) -> Iterator[Callable[[str], Tried]]:
    def written(heading: str) -> Tried:
        section = SECTIONS[heading]
        for name, text in section.files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        write_data(tmp_path)
        if "mine.jsonl" not in section.files:
            (tmp_path / "mine.jsonl").write_bytes((tmp_path / "careful.jsonl").read_bytes())
        path = tmp_path / "profile.yaml"
        profile = with_lines(small_profile(base), section.profile)
        path.write_text(yaml.safe_dump(profile), encoding="utf-8")
        found = Platform(path, instance)
        dg.Definitions.validate_loadable(found.definitions)  # as Dagster loads the study
        return Tried(found, tmp_path)

    with dg.DagsterInstance.ephemeral() as instance:
        yield written


Try = Callable[[str], Tried]


def scores_of(table: pd.DataFrame, examples: pd.DataFrame, indicator: str) -> list[float]:
    wide = table.pivot(index="example_id", columns="indicator", values="value")
    return wide[indicator].loc[examples["example_id"]].tolist()


def test_an_indicator_of_one_example(tried: Try) -> None:
    mine = tried("An indicator of one example")
    tables = mine.materialize("eval_set", "dolly_dataset", "dolly_scores")
    pool = tables["dolly_dataset"]
    found = scores_of(tables["dolly_scores"], pool, "shouts")
    assert found == pool["output"].str.count("!").tolist()


@pytest.mark.model
def test_an_indicator_of_a_set(tried: Try) -> None:
    mine = tried("An indicator of a set")
    tables = mine.materialize("eval_set", "dolly_dataset", "dolly_scores")
    pool, scores = tables["dolly_dataset"], tables["dolly_scores"]
    ids = pool["example_id"].tolist()
    vectors = embeddings_of(ids, mine.models, mine.warehouse)
    frame = pool_indicators(ids, scores, mine.study, lambda: vectors)
    [spread] = set_level(mine.study.scoring)
    within = [
        spread.of_set(vectors[np.random.default_rng(seed).choice(len(ids), 5, replace=False)])
        for seed in range(500)
    ]
    assert frame["spread"].mean() == pytest.approx(np.mean(within), rel=0.05)
    assert frame["spread"].nunique() == len(ids)


def test_a_selection_strategy(tried: Try) -> None:
    mine = tried("A selection strategy")
    pool = small_pool(30)
    pool.examples["instruction"] = ["?" * (1 + 7 * i % 30) for i in range(30)]
    chosen = pool.examples["instruction"].iloc[choose(mine.study.selection, pool, 5, seed=0)]
    assert chosen.str.len().tolist() == [10, 11, 12, 13, 14]


def test_a_data_format(tried: Try) -> None:
    mine = tried("A data format")
    pool = mine.materialize("eval_set", "candidate_datasets")["candidate_datasets"]
    [ticket] = pool[pool["source"] == "tickets"].to_dict("records")
    assert ticket["instruction"] == "How do I reset the clock?"
    assert ticket["output"] == "Hold both buttons for five seconds."
    assert (ticket["input"], ticket["category"]) == ("", "clock")
    quarantined = mine.warehouse.read_table("quarantined_examples").set_index("source")
    assert quarantined.loc["tickets", "reason"] == "the ticket is not closed"


def test_a_prompt_template(tried: Try, base: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    name = tried("A prompt template").study.models.prompt
    assert template_key(name) == "interview"
    encoded = encode(tokenizer, name, "Why?", "Be brief.", ["Because."], 64)
    assert tokenizer.decode(encoded.prompt) == "[Be brief.]\nInterviewer: Why?\nExpert:"
    assert tokenizer.decode(encoded.outputs[0]).startswith(" Because.")


def test_a_second_pool(tried: Try) -> None:
    mine = tried("A second pool")
    tables = mine.materialize("eval_set", "dolly_dataset", "mine_dataset", "mine_scores")
    assert set(tables["mine_scores"]["example_id"]) == set(tables["mine_dataset"]["example_id"])
    graph = mine.platform.definitions.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {f"{pool}_selection" for pool in ("dolly", "mine")} <= keys


def test_scores_from_a_column(tried: Try) -> None:
    mine = tried("Scores from a column")
    names = ("eval_set", "candidate_datasets", "dolly_dataset", "dolly_scores")
    tables = mine.materialize(*names)
    pool = tables["dolly_dataset"]
    assert pool["quality_score"].tolist() == ((pool["line"] - 1) / 4).tolist()
    found = scores_of(tables["dolly_scores"], pool, "quality")
    assert found == pool["quality_score"].tolist()
    assert set(tables["candidate_datasets"]["quality_score"]) <= {i / 4 for i in range(ROWS)}


def test_scores_from_a_file(tried: Try) -> None:
    mine = tried("Scores from a file")
    names = list(json.loads(SECTIONS["Scores from a file"].files["scores.jsonl"]))
    rows = [
        dict(zip(names, (f"{source}-{i}", float(i)), strict=True))
        for source in ("careful", "terse", "unseen")
        for i in range(ROWS)
    ]
    (mine.folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables = mine.materialize("eval_set", "dolly_dataset", "dolly_scores")
    pool = tables["dolly_dataset"]
    assert pool["id"].tolist() == [f"unseen-{line - 1}" for line in pool["line"]]
    assert scores_of(tables["dolly_scores"], pool, "judged") == (pool["line"] - 1.0).tolist()


def test_a_measure(tried: Try) -> None:
    tables = tried("A measure").materialize(*TRIALS, "example_scores", "indicator_table")
    for _, point in tables["indicator_table"].iterrows():
        mine = tables["eval_losses"]["seed"] == point["partition"]
        losses = tables["eval_losses"].loc[mine, "loss"].nlargest(mine.sum() // 10)
        assert point["hardest_tenth"] == pytest.approx(losses.mean())
        assert point["hardest_tenth"] > point["loss"]


def test_a_trainer(tried: Try, base: Path) -> None:
    mine = tried("A trainer")
    mine.materialize(*TRIALS)
    before = load_file(base / "model.safetensors")
    [*folders] = (mine.study.folder / "adapters").rglob("*.safetensors")
    assert len(folders) >= 4
    after = load_file(folders[0])
    changed = {n for n in after if not torch.equal(after[n].float(), before[n].float())}
    assert changed == {name for name in before if "norm" in name}


def test_every_example_of_the_page_has_its_test() -> None:
    for heading in SECTIONS:
        name = "test_" + heading.lower().replace(" ", "_")
        assert name in globals(), f"docs/extending.md shows {heading!r}: add {name}"
