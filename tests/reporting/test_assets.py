import json
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from im_assets.evidence.evidence import rule_findings
from im_assets.reporting.assets import ALWAYS, definitions, report_dependencies
from im_assets.reporting.blocks import Facts, Figure, Text
from im_assets.reporting.export import main
from im_assets.reporting.gather import Gathered, ReportError, gather
from im_assets.reporting.report import make_report, write_report
from im_assets.reporting.sections.answer import rule_sentence, selection_sentences
from im_assets.reporting.sections.evidence import section as evidence
from im_assets.rule.document import coefficient_table
from im_assets.rule.fitting import fit_rule
from im_resources.lake_address import LakeAddress
from im_resources.study import RuleSettings, Study
from im_resources.warehouse import Warehouse
from tests.reporting.tables import HOSTILE, NAMES, fill, make_study, tables, without_parts


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))


def report_assets(study: Study) -> list[dg.AssetsDefinition]:
    return [a for a in definitions(study).assets or () if isinstance(a, dg.AssetsDefinition)]


def test_the_asset_depends_on_what_the_profile_asks_for() -> None:
    everything, least = (set(report_dependencies(s)) for s in (make_study(), without_parts()))
    assert everything - least == {
        "univariate_study", "univariate_bins", "selection_validation", "noise_floor",
        "validation_runs", "rule_deciles", "pairwise_judge", "proxy_transfer", "size_search",
        "selection_costs", "registered_analysis", "mining_rounds",
    }  # fmt: skip
    assert {"quality_rule", "rule_evidence", "dolly_selection"} <= least
    published = make_study(rule={"source": "published_v1"}, mining=None)
    assert "rule_evidence" not in report_dependencies(published)
    without = make_study(validation={"deciles": 0})
    assert "rule_deciles" not in report_dependencies(without)
    [asset] = report_assets(make_study())
    assert everything > set(ALWAYS)
    assert {key.to_user_string() for key in asset.dependency_keys} == everything


def test_the_asset_writes_the_report_and_shows_it() -> None:
    study = make_study()
    warehouse = fill(study.warehouse, study)
    result = dg.materialize(
        report_assets(study), resources={"study": study, "warehouse": warehouse}
    )
    [event] = result.asset_materializations_for_node("study_report")
    page = study.folder / "report" / "index.html"
    assert event.metadata["page"].value == str(page)
    assert event.metadata["link"].value == page.as_uri()
    assert "not distinguishable from random" in str(event.metadata["preview"].value)
    for name in ("rule", "validation"):
        assert "(data:image/png;base64," in str(event.metadata[name].value)
    assert "Rank 1" in page.read_text(encoding="utf-8")
    json.loads((page.parent / "report.json").read_text(encoding="utf-8"))


def test_a_table_that_lacks_a_column_is_an_error_that_names_both(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    frame = warehouse.read_table("noise_floor").drop(columns="sd")
    warehouse.replace_table("noise_floor", frame)
    with pytest.raises(ReportError, match=r"'noise_floor' lacks the column\(s\) sd"):
        gather(study, warehouse, with_rows=True)


def test_a_quarantine_without_kinds_says_what_to_materialize(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    kinds = warehouse.query("report_quarantined.sql")
    assert kinds.loc[kinds["dataset"] == "dolly_dataset", "kind"].tolist() == [
        "not recorded: materialize dolly_dataset again"
    ]
    frame = warehouse.read_table("quarantined_examples").drop(columns="kind")
    warehouse.replace_table("quarantined_examples", frame)
    with pytest.raises(
        ReportError, match=r"lacks .* kind; .* materialize candidate_datasets again"
    ):
        gather(study, warehouse, with_rows=True)


def test_of_a_rule_of_chance_nothing_is_said_but_that(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    found = gather(study, warehouse, with_rows=True)
    assert "finds lower loss with higher reward" in rule_sentence(found)
    assert found.rule is not None
    assert found.rule.chance is not None
    fit = found.rule.chance.loo_r2.model_copy(update={"p": 0.34})
    chance = found.rule.chance.model_copy(update={"loo_r2": fit})
    rule = found.rule.model_copy(update={"chance": chance})
    assert rule.id == found.rule.id  # the selection that is there is of this rule
    warehouse.replace_table("quality_rule", coefficient_table(rule))
    found = gather(study, warehouse, with_rows=True)
    report = make_report(found, True, {})
    first, second = (b.text for b in report.section("answer").blocks[:2] if isinstance(b, Text))
    assert first.startswith(
        "Which instruction data is worth finetuning on? From 24 finetuned mixtures, the study "
        "found no rule beyond chance: shuffled losses too often give a rule that does as well on "
        "mixtures left out (p = 0.34 of 20 shuffles, 24 mixtures; up to 0.05 counts as beyond "
        "chance)."
    )
    assert "higher" not in first
    assert "Nothing is selected: the strategy rule ranks by the study's rule" in second
    assert "selection.when_chance: select" in second
    selected = report.section("selection").blocks
    assert [type(block) for block in selected] == [Text]
    text = json.dumps(report.document(), ensure_ascii=False)
    assert "This rule is not beyond chance" in text
    assert "What each indicator would do, by a rule not beyond chance" in text
    assert "significan" not in text
    # Asked to select all the same, it does, and says by what.
    study = make_study(selection={"size": "searched", "when_chance": "select"})
    marked = warehouse.read_table("dolly_selection").assign(beyond_chance=False)
    warehouse.replace_table("dolly_selection", marked)
    said = warnings(gather(study, warehouse, with_rows=True))["selection"]
    assert "The selection is by a rule that is not beyond chance (selection.when_chance)." in said


def test_the_rule_is_shown_with_its_resamples_and_without_p_values(tmp_path: Path) -> None:
    study = make_study()
    found = gather(study, fill(tmp_path / "w.duckdb", study), with_rows=True)
    report = make_report(found, True, {}).document()["sections"]
    table = report["rule"]["tables"]["coefficients"]
    labels = [column["label"] for column in table["columns"]]
    assert {"p", "t"}.isdisjoint(labels)
    assert {"Chosen in resamples", "Of these, same sign", "Points from"} <= set(labels)
    assert found.rule is not None
    rows = {row["name"]: row for row in table["rows"]}
    often = found.evidence("inclusion").set_index("item")["value"]
    for name in found.rule.indicators:
        assert rows[name]["Chosen in resamples"] == pytest.approx(often[name])
    # And the selection with its share outside of what the points cover, the pool beside it.
    reach = report["selection"]["tables"]["reach"]
    assert [row["indicator"] for row in reach["rows"]] == list(found.rule.indicators)


def test_a_rule_that_bends_is_shown_with_its_curves_and_its_shapes(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    table = tables(study)["indicator_table"]
    way = np.abs(table["ppl"] - table["ppl"].mean())
    table = table.assign(log_loss=0.5 + 0.1 * way / way.std())
    bends = RuleSettings(shapes=("line", "additive"), bootstrap=10, permutations=20)
    rule = fit_rule(table, NAMES, bends)
    assert rule.shape == "additive"
    sources = dict.fromkeys(table["partition"], "a")
    warehouse.replace_table("indicator_table", table)
    warehouse.replace_table("quality_rule", coefficient_table(rule))
    findings = rule_findings(table, sources, rule, bends).assign(rule_id=rule.id)
    warehouse.replace_table("rule_evidence", findings)
    found = gather(study, warehouse, with_rows=True)
    made = make_report(found, True, {})
    assert (write_report(made, tmp_path / "report").parent / "figures" / "curves.svg").is_file()
    report = made.document()["sections"]
    assert "curves" in report["rule"]["figures"]
    assert "effects" not in report["rule"]["figures"]
    shapes = report["evidence"]["tables"]["shapes"]["rows"]
    assert [(row["item"], row["x"] > 0.5) for row in shapes] == [
        ("line", False),
        ("additive", True),
    ]
    assert " near " in rule_sentence(found)  # the middle of the range is best, not an end
    assert "residuals" not in report["evidence"]["figures"]


def test_the_share_of_each_source_is_the_reports_first_figure(tmp_path: Path) -> None:
    study = make_study()
    found = gather(study, fill(tmp_path / "w.duckdb", study), with_rows=True)
    sections = make_report(found, True, {}).sections
    first = next(b for s in sections for b in s.blocks if isinstance(b, Figure))
    assert first.key == "source_shares"


def test_the_answer_and_the_evidence_follow_the_verdicts(tmp_path: Path) -> None:
    study = make_study()
    findings = tables(study)["rule_evidence"]
    chosen = findings["item"] == "d_optimal"
    assert chosen.sum() > 1
    first = findings["x"][chosen].min()
    findings = findings.assign(
        verdict=findings["verdict"].mask(chosen, "better").replace("beyond_chance", "chance"),
        note=findings["note"].mask(chosen, "saves " + findings["x"].astype("string")),
    )
    warehouse = fill(tmp_path / "w.duckdb", study)
    warehouse.replace_table("rule_evidence", findings)
    found = gather(study, warehouse, with_rows=False)
    said = [block.text for block in evidence(found).blocks if isinstance(block, Text)]
    assert any("The fit is what chance alone gives." in text for text in said)
    assert f"saves {first}." in said


def test_the_base_models_loss_on_another_evaluation_set_is_not_shown(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    assert gather(study, warehouse, with_rows=False).base == pytest.approx(2.5)
    other = warehouse.read_table("base_losses").assign(fingerprint="of another set")
    warehouse.replace_table("base_losses", other)
    assert gather(study, warehouse, with_rows=False).base is None


def warnings(found: Gathered) -> dict[str, list[str]]:
    """The warnings of each section of the report, by the section's key."""
    report = make_report(found, False, {})
    texts = {s.key: [b for b in s.blocks if isinstance(b, Text)] for s in report.sections}
    return {k: [b.text for b in t if b.role == "warning"] for k, t in texts.items()}


def test_what_is_of_an_earlier_rule_is_said_beside_it(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    found = gather(study, warehouse, with_rows=False)
    assert not [t for texts in warnings(found).values() for t in texts if "earlier rule" in t]
    assert "Checked by finetuning." in " ".join(selection_sentences(found))
    answered = make_report(found, False, {}).document()["sections"]["answer"]

    assert found.rule is not None
    constant = found.rule.constant.model_copy(update={"estimate": 0.5})
    another = found.rule.model_copy(update={"constant": constant})
    warehouse.replace_table("quality_rule", coefficient_table(another))
    found = gather(study, warehouse, with_rows=False)
    said = warnings(found)
    for section, table in {
        "evidence": "rule_evidence",
        "validation": "selection_validation and rule_deciles",
        "size": "size_search",
        "judge": "pairwise_judge",
    }.items():
        assert any(t.startswith(f"{table} belong to an earlier rule") for t in said[section]), table
    assert "The selection is of an earlier rule: materialize it again." in said["selection"]
    # The answer does not take the earlier rule's verdict for this one's.
    [sentence] = selection_sentences(found)
    assert "the verdicts below belong to an earlier rule" in sentence
    now = make_report(found, False, {}).document()["sections"]["answer"]
    assert "not distinguishable" in json.dumps(answered)
    assert "not distinguishable" not in json.dumps(now)


def test_a_table_of_before_rules_had_an_id_says_what_to_materialize(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    frame = warehouse.read_table("selection_validation").drop(columns="rule_id")
    warehouse.replace_table("selection_validation", frame)
    with pytest.raises(ReportError, match=r"rule_id; .* materialize selection_validation again"):
        gather(study, warehouse, with_rows=True)


def test_points_of_other_experiments_are_no_mixtures(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    table = warehouse.read_table("indicator_table")
    bins = table[:4].assign(experiment="univariate", partition=[f"ppl-bin-{i}" for i in range(4)])
    warehouse.replace_table("indicator_table", pd.concat([table, bins], ignore_index=True))
    found = gather(study, warehouse, with_rows=False)
    assert found.mixtures is not None
    assert found.mixtures["partition"].tolist() == table["partition"].tolist()
    report = make_report(found, False, {}).document()
    assert "ppl-bin-0" not in json.dumps(report["sections"]["mixtures"])


def test_every_pool_has_its_part_of_the_selection(tmp_path: Path) -> None:
    source = {"path": "none.jsonl"}
    data = make_study().data.model_dump() | {"unseen": {"dolly": source, "mine": source}}
    study = make_study(data=data)
    warehouse = fill(tmp_path / "w.duckdb", study)
    found = gather(study, warehouse, with_rows=True)
    assert found.pools["dolly"].selection is not None
    assert found.pools["mine"].selection is None
    selection = warehouse.read_table("dolly_selection")
    for kind in ("dataset", "scores", "selection"):
        warehouse.replace_table(f"mine_{kind}", warehouse.read_table(f"dolly_{kind}"))
    warehouse.replace_table("mine_selection", selection.head(7).assign(rule_id="an earlier one"))
    found = gather(study, warehouse, with_rows=True)
    assert {name: pool.examples for name, pool in found.pools.items()} == {"dolly": 60, "mine": 60}
    report = make_report(found, True, {})
    blocks = report.section("selection").blocks
    facts = {f.key: f.value for b in blocks if isinstance(b, Facts) for f in b.items}
    assert (facts["dolly_selected"], facts["mine_selected"]) == (20, 7)
    assert warnings(found)["selection"] == [
        "The selection of mine is of an earlier rule: materialize it again."
    ]
    page = write_report(report, tmp_path / "report").read_text(encoding="utf-8")
    assert "examples selected of mine" in page
    assert {"dolly_dataset", "mine_dataset", "mine_scores", "mine_selection"} <= set(
        report_dependencies(study)
    )


def test_every_example_says_where_it_came_from(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    before = write_report(make_report(gather(study, warehouse, True), True, {}), tmp_path / "old")
    assert "line 7" not in before.read_text(encoding="utf-8")  # tables from before there were any
    for name in ("dolly_dataset", "dolly_selection"):
        rows = warehouse.read_table(name).assign(source="unseen", file="new.csv", line=7)
        warehouse.replace_table(name, rows.assign(own_id="<b>t-7</b>"))
    report = make_report(gather(study, warehouse, with_rows=True), True, {})
    page = write_report(report, tmp_path / "report").read_text(encoding="utf-8")
    assert page.count("unseen (new.csv) line 7, id &lt;b&gt;t-7") == 15
    assert "<b>t-7" not in page


def test_an_export_holds_no_text_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study()
    profile = tmp_path / "simulated.yaml"
    profile.write_text(yaml.safe_dump(study.model_dump(mode="json")), encoding="utf-8")
    fill(study.warehouse, study)
    folder = tmp_path / "published"
    for _ in range(2):  # the second replaces the first
        assert main([str(profile), str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "index.html")
    assert sorted(p.name for p in folder.iterdir()) == ["figures", "index.html", "report.json"]
    texts = [HOSTILE, "Instruction number", "tell of the river", "The river answer",
             "Judged instruction", "First answer text", "alert("]  # fmt: skip
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_text(encoding="utf-8")
        assert not [t for t in texts if t in content], path
    assert "holds no row of the data" in (folder / "index.html").read_text(encoding="utf-8")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".published")]


def test_an_export_of_a_study_that_never_ran_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", str(tmp_path / "out")]) == 1
    assert "has not run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    study = make_study()
    report = make_report(gather(study, Warehouse(tmp_path / "w.duckdb"), False), False, {})
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        write_report(report, folder)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_collapsed_selection_is_told_in_the_first_paragraph(tmp_path: Path) -> None:
    study = make_study()
    warehouse = fill(tmp_path / "w.duckdb", study)
    first = make_report(gather(study, warehouse, False), False, {}).section("answer").blocks[0]
    assert isinstance(first, Text)
    assert "Mind what it selects" not in first.text
    pool = tables(study)["dolly_dataset"]
    chinese = pool[pool["language"] == "zh"]["example_id"].head(20)
    selection = tables(study)["dolly_selection"].assign(example_id=chinese.tolist())
    warehouse.replace_table("dolly_selection", selection)
    report = make_report(gather(study, warehouse, False), False, {})
    first = report.section("answer").blocks[0]
    assert isinstance(first, Text)
    assert "100% of the selection is zh (language), and 50% of the pool" in first.text
    document = report.document()["sections"]
    [row] = [
        r
        for r in document["selection"]["tables"]["composition"]["rows"]
        if (r["column"], r["group"]) == ("language", "zh")
    ]
    assert (row["selected"], row["pool"]) == (1.0, 0.5)
    languages = document["data"]["tables"]["languages"]["rows"]
    assert {(r["dataset"], r["language"]) for r in languages} >= {("dolly_dataset", "zh")}


def test_a_report_of_a_lake_is_that_of_a_file_and_names_its_snapshot(
    tmp_path: Path, lake_address: LakeAddress
) -> None:
    study = make_study()
    file, lake = fill(tmp_path / "w.duckdb", study), fill(lake_address, study)
    reports = []
    for warehouse in (file, lake):
        found = gather(study, warehouse, with_rows=True)
        reports.append(make_report(found, True, {"python": "3"}).document())
    named = {"name": "lake snapshot", "version": str(lake.snapshot())}
    assert json.dumps(named) in json.dumps(reports[1]["sections"]["settings"])
    for report in reports:
        del report["sections"]["settings"]
    assert json.dumps(reports[0], sort_keys=True) == json.dumps(reports[1], sort_keys=True)
