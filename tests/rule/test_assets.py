import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from PIL import Image

from im_assets.common.charts.drawing import MAX_BYTES, png, svg
from im_assets.common.charts.panels import panels
from im_assets.common.presentation import markdown
from im_assets.experiments.finetuning import training_settings_id
from im_assets.mixtures.experiment import mixture_experiment
from im_assets.rule import checks
from im_assets.rule.assets import COLUMNS, rule_asset
from im_assets.rule.document import load_rule, read_rule
from im_assets.rule.figures import coefficient_figure, fit_figure, indicator_figure
from im_assets.rule.fitting import fit_rule
from im_assets.rule.published import published_rule
from im_assets.rule.ready import transform_of
from im_assets.rule.target import Target
from im_resources.gpu import GpuResource
from im_resources.study import RuleSettings, Study
from tests.rule.data import random_study

NAMES = ["x0", "x1", "x2"]


def make_study(seeds: int | list[int] = 24, **rule: Any) -> Study:
    source = {"path": "none.jsonl"}
    model = {"path": "none"}
    return Study.model_validate(
        {
            "name": "test",
            "label": "test-scale",
            "data": {"candidates": {"a": source}, "unseen": source, "evaluation": source},
            "models": {"base": model, "embedding": model},
            "mixtures": {"seeds": seeds},
            "scoring": {"indicators": dict.fromkeys(NAMES, "mtld")},
            "rule": rule,
        }
    )


def materialize(table: pd.DataFrame, study: Study) -> dg.ExecuteInProcessResult:
    @dg.asset
    def indicator_table() -> pd.DataFrame:
        return table.assign(settings_id=training_settings_id(study)).assign(
            transform=table.get("transform", transform_of(study)),
            trial_id="trial-" + table["partition"],
            base_id="base",
            evaluation_id="evaluation",
        )

    @dg.asset
    def mixture_seeds() -> pd.DataFrame:
        keys = mixture_experiment(study).keys
        return pd.DataFrame({"seed": keys, "version": 1, "refit": False, "retired": False})

    return dg.materialize(
        [
            indicator_table,
            mixture_seeds,
            rule_asset(study),
            checks.indicator_table_is_finite,
            checks.indicators_are_not_collinear,
        ],
        resources={
            "study": study,
            "gpu": GpuResource(device="cpu"),
            "io_manager": dg.mem_io_manager,
        },
        raise_on_error=False,
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))


def test_the_asset_writes_the_rule_as_table_document_and_metadata() -> None:
    table, study = random_study(), make_study()
    result = materialize(table, study)
    assert result.success
    frame = result.output_for_node("quality_rule")
    assert list(frame.columns) == list(COLUMNS)
    rule = read_rule(study.folder / "quality_rule.json")
    assert load_rule(frame) == rule
    assert rule.points_id  # by which evidence and report know the points
    assert rule.trials == tuple("trial-" + table["partition"])  # which the next test leaves out
    nothing = {"points_id": "", "values_id": "", "trials": (), "made_with": ""}
    bare = rule.model_copy(update=nothing)
    assert bare == fit_rule(table.assign(transform="log"), NAMES, study.rule)
    assert rule.winsorize
    document = json.loads((study.folder / "quality_rule.json").read_text())  # for other tools
    assert {c["name"] for c in document["rule"]["coefficients"]} == set(rule.indicators)
    [event] = result.asset_materializations_for_node("quality_rule")
    metadata = event.metadata
    assert metadata["study"].value == "test-scale"
    assert metadata["loo_spearman"].value == rule.loo_spearman
    assert metadata["document"].value == str(study.folder / "quality_rule.json")
    assert markdown(", ".join(rule.indicators)) in str(metadata["path"].value)
    assert metadata["indicators chosen by"].value == "all_subsets"
    assert metadata["standard errors"].value == "HC3"
    for name in ("predicted_against_actual", "effects", "indicators"):
        head, _, data = str(metadata[name].value).partition("base64,")
        assert head.endswith("(data:image/png;")
        assert base64.b64decode(data.rstrip(")"), validate=True).startswith(b"\x89PNG")


def test_a_rule_without_indicators_materializes() -> None:
    result = materialize(
        random_study(slopes=(0, 0, 0)), make_study(choose="stepwise", p_enter=1e-9)
    )
    assert result.success
    [event] = result.asset_materializations_for_node("quality_rule")
    assert event.metadata["loo_spearman"].value is None
    assert "ranks nothing" in str(event.metadata["warnings"].value)


def test_a_published_rule_needs_its_indicators_and_tells_what_differs(tmp_path: Path) -> None:
    study = make_study(source="published_v1")
    assert not materialize(random_study(), study).success
    (tmp_path / "model.safetensors").write_bytes(b"only hashed")
    model = {"path": str(tmp_path)}
    scoring = {"indicators": dict.fromkeys(["reward", "len_out", "knn_6"], "mtld")}
    named = random_study().rename(columns={"x0": "reward", "x1": "len_out", "x2": "knn_6"})
    study = Study.model_validate(
        study.model_dump() | {"scoring": scoring, "models": {"base": model, "embedding": model}}
    )
    result = materialize(named, study)
    assert result.success
    rule = load_rule(result.output_for_node("quality_rule"))
    own, *more = rule.warnings
    assert rule.model_copy(update={"warnings": (own,)}) == published_rule("published_v1")
    assert [w.indicator for w in more] == ["reward", "len_out", "knn_6", None]
    assert {w.kind for w in more} == {"unproven"}


@pytest.mark.parametrize(
    ("break_it", "check"),
    [
        (lambda t: t.assign(x1=float("inf")), "indicator_table_is_finite"),
        (lambda t: t.assign(log_loss=float("nan")), "indicator_table_is_finite"),
        (lambda t: t.drop(columns="x2"), "indicator_table_is_finite"),
    ],
    ids=["infinite", "nan", "column"],
)
def test_the_checks_stop_the_rule(
    break_it: Callable[[pd.DataFrame], pd.DataFrame], check: str
) -> None:
    study = make_study()
    result = materialize(break_it(random_study()), study)
    assert not result.success
    evaluations = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert [name for name, e in evaluations.items() if not e.passed] == [check]
    assert not (study.folder / "quality_rule.json").exists()


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = result.filter_events(lambda e: e.is_step_failure and e.step_key == "quality_rule")
    return str(event.step_failure_data.error)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            lambda t: t[:20],
            "lacks 4 of 24 mixtures (seed-020, seed-021, seed-022, seed-023): see its check "
            "mixtures_parts_agree",
        ),
        (lambda t: t.assign(experiment="univariate"), "lacks 24 of 24 mixtures"),
        (lambda t: pd.concat([t, t[:1]]), "mixtures repeated: seed-000"),
        (
            lambda t: t.assign(transform="none"),
            "holds indicators on the scale none, and the rule's is log (rule.transform); "
            "materialize indicator_table again",
        ),
    ],
    ids=["missing", "of another experiment", "repeated", "on another scale"],
)
def test_a_rule_on_other_points_than_the_studys_is_not_fitted(
    break_it: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    """Also where quality_rule is materialized alone, and no check of the table runs."""
    study = make_study()
    result = materialize(break_it(random_study()), study)
    assert not result.success
    assert words in failure(result)
    assert not (study.folder / "quality_rule.json").exists()


def test_a_study_of_named_seeds_needs_exactly_these() -> None:
    table = random_study().assign(partition=[f"seed-{7 * i:03d}" for i in range(24)])
    named = make_study(seeds=[7 * i for i in range(24)])
    assert not failed_checks(materialize(table, named))
    assert "(seed-000)" in failure(materialize(table[1:], named))


def test_the_rule_names_itself_in_table_and_metadata() -> None:
    """Verdicts carry this id; only a rule that predicts something else has another."""
    ids = []
    for table in (random_study(), random_study(), random_study(seed=1)):
        result = materialize(table, make_study())
        frame = result.output_for_node("quality_rule")
        rule = load_rule(frame)
        assert set(frame["rule_id"]) == {rule.id}
        [event] = result.asset_materializations_for_node("quality_rule")
        assert event.metadata["rule_id"].value == rule.id
        ids.append(rule.id)
    assert ids[0] == ids[1] != ids[2]


def test_collinear_indicators_warn_and_do_not_block() -> None:
    table = random_study(noise=0.01)
    table["x2"] = table["x0"] + 0.02 * table["x2"]
    table["log_loss"] += 5 * (table["x2"] - table["x0"])
    result = materialize(table, make_study())
    assert result.success
    [warning] = failed_checks(result)
    assert warning.check_name == "indicators_are_not_collinear"
    assert warning.severity == dg.AssetCheckSeverity.WARN
    assert "x0: variance inflation factor" in str(warning.description)


def failed_checks(result: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
    return [e for e in result.get_asset_check_evaluations() if not e.passed]


def test_figures_are_readable_and_small() -> None:
    names = [f"x{i}" for i in range(9)]
    table = random_study(rows=78, slopes=[0.5, -0.3] + [0] * 7)
    fitted = fit_rule(table, names, RuleSettings())
    empty = fitted.model_copy(update={"coefficients": (), "loo_predictions": {}})
    assert coefficient_figure(empty, table) is None
    effects = coefficient_figure(fitted, table)
    assert effects is not None
    for chart in (
        fit_figure(fitted, table),
        fit_figure(empty, table),
        effects,
        indicator_figure(table, names, fitted.indicators),
    ):
        made = png(chart)
        assert len(made) <= MAX_BYTES
        assert Image.open(io.BytesIO(made)).width == 900


def test_the_fit_is_drawn_of_every_mixture_against_the_rules_target() -> None:
    table = random_study().rename(columns={"log_loss": "win_rate"})
    rule = fit_rule(table, NAMES, RuleSettings(), Target("win_rate", "identity", "higher"))
    chart = fit_figure(rule, table)
    data = chart["datasets"]
    assert [p["x"] for p in data["predicted"]] == table["win_rate"].tolist()
    assert [p["y"] for p in data["predicted"]] == pytest.approx(rule.predict_points(table).tolist())
    assert len(data["predicted_without_it"]) == len(table)
    drawn = svg(chart, 328, "alt")
    assert "actual win rate" in drawn
    assert "log loss" not in drawn


def test_each_indicator_has_a_panel_with_its_rank_correlation() -> None:
    table = random_study()
    parts = panels(indicator_figure(table, NAMES, ["x0"]))
    assert [p["title"] for p in parts] == NAMES
    assert "mean x0 (ρ = " in svg(parts[0], 328, "alt")
