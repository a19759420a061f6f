"""The file of finished runs: what is read of it, and what is said of one that is wrong."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from im_assets.experiments.lineage import set_id_of
from im_assets.experiments.measures import MeasureError
from im_assets.own_runs.points import members_table
from im_assets.own_runs.reading import OwnRuns, OwnRunsError, Run, read_runs
from im_assets.rule.target import Target
from im_resources.study import RunsSettings, load_study
from tests.own_runs.finished import id_of, pool_rows, write_rows, write_runs, write_study

POOL = pool_rows(0, 12, 9)
IDS = [id_of(row) for row in POOL]
LOSS = Target()


def read(path: Path, target: Target = LOSS, **settings: Any) -> OwnRuns:
    own = RunsSettings(path=str(path), measure=target.measure, **settings)
    return read_runs(own, target, frozenset(IDS))


def good(**changes: Any) -> list[dict[str, Any]]:
    """Three runs of ids, the second one changed."""
    rows: list[dict[str, Any]] = [
        {"run": f"r{i}", "loss": 1.5 + i, "examples": " ".join(IDS[i : i + 3])} for i in range(3)
    ]
    rows[1] |= changes
    return rows


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)
runs = st.lists(
    st.tuples(
        names.filter(lambda name: len(name) <= 100),
        st.floats(min_value=1e-300, max_value=1e100),
        st.lists(st.integers(0, len(IDS) - 1), min_size=1, max_size=8),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda run: run[0],
)


@given(runs=runs)
def test_what_is_written_is_read_whether_by_ids_or_by_files(
    runs: list[tuple[str, float, list[int], bool]],
) -> None:
    with TemporaryDirectory() as name:
        folder, rows = Path(name), []
        for number, (run, loss, places, by_file) in enumerate(runs):
            row: dict[str, Any] = {"run": run, "loss": repr(loss), "file": "", "examples": ""}
            if by_file:
                write_rows(folder / f"{number}.jsonl", [POOL[place] for place in places])
                row["file"] = f"{number}.jsonl"
            else:
                row["examples"] = "  ".join(IDS[place] for place in places)
            rows.append(row)
        found = read(write_runs(folder / "runs.csv", rows))
    wanted = [(run, loss, tuple(IDS[p] for p in places)) for run, loss, places, _ in runs]
    assert [(run.name, run.value, run.members) for run in found.runs] == wanted
    assert found.ignored == ()


def test_a_run_by_a_file_in_another_format_has_the_same_examples(tmp_path: Path) -> None:
    talks = [
        {
            "messages": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ]
        }
        for row in POOL
    ]
    write_rows(tmp_path / "talks.jsonl", talks)
    path = write_runs(tmp_path / "runs.csv", [{"run": "a", "loss": 1, "file": "talks.jsonl"}])
    assert read(path, format="messages").runs[0].members == tuple(IDS)


def test_rows_that_are_no_example_are_counted(tmp_path: Path) -> None:
    rows = [*POOL[:2], {"instruction": "Why?", "output": " "}]
    file = write_rows(tmp_path / "a.jsonl", rows)
    file.write_text(file.read_text("utf-8") + "{broken\n", encoding="utf-8")
    path = write_runs(tmp_path / "runs.csv", [{"run": "a", "loss": 1, "file": "a.jsonl"}])
    assert read(path).runs == (Run("a", 2, 1.0, tuple(IDS[:2]), 2),)


def test_further_columns_are_named_and_not_read(tmp_path: Path) -> None:
    path = write_runs(tmp_path / "runs.csv", [row | {"lr": "3e-4", "by": "?"} for row in good()])
    assert read(path).ignored == ("lr", "by")


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f"\ufeffrun;loss;examples\nr;1.5;{IDS[0]} {IDS[1]}\n", encoding="utf-8")
    assert read(path).runs == (Run("r", 2, 1.5, tuple(IDS[:2])),)


BETTER = Target("accuracy", "logit", "higher")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "1,5"}, "line 3: loss is '1,5'; give a number, such as 1.85"),
        ({"loss": "nan"}, "line 3: loss is 'nan'; give a number"),
        ({"loss": "1_5"}, "line 3: loss is '1_5'; give a number"),
        ({"loss": 1e101}, "line 3: loss is '1e+101'; give a number"),
        ({"loss": ""}, "line 3: loss is ''; give a number"),
        ({"loss": 0}, "line 3: loss is '0'; only a positive number has a logarithm (runs.scale: "),
        ({"loss": -2}, "line 3: loss is '-2'; only a positive number"),
        ({"run": "r0"}, "line 3: run 'r0' stands in line 2 already"),
        ({"run": " "}, "line 3: run is ''; give a name"),
        ({"examples": ""}, "line 3: file and examples: both are empty; give one"),
        ({"file": "a.jsonl"}, "line 3: file and examples: both are given; give one"),
        ({"examples": f"{IDS[0]},{IDS[1]}"}, "is no example_id (16 digits of 0-9 and a-f)"),
        (
            {"examples": f"{IDS[0]} {'0' * 16} {'f' * 16}"},
            "line 3: examples: 2 of 3 examples are in no source of data.candidates (000000",
        ),
        ({"examples": "", "file": "gone.jsonl"}, "gone.jsonl: no such file"),
        ({"examples": "", "file": "x.txt"}, "x.txt: unknown file kind"),
    ],
)
def test_a_wrong_field_is_told_with_its_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(OwnRunsError, match=re.escape(said)) as error:
        read(write_runs(tmp_path / "runs.csv", good(**changes)))
    assert str(error.value).startswith(f"{tmp_path / 'runs.csv'}: line 3: ")


def test_a_share_of_all_or_none_has_no_logit(tmp_path: Path) -> None:
    rows = [row | {"accuracy": 0.5} for row in good(accuracy=1.0)]
    rows[1]["accuracy"] = 1.0
    path = write_runs(tmp_path / "runs.csv", rows)
    with pytest.raises(OwnRunsError, match=r"line 3: accuracy is '1\.0'; only what lies between 0"):
        read(path, BETTER)
    assert read(path, Target("accuracy", "identity", "higher")).runs[1].value == 1.0


def test_a_file_with_examples_of_other_data_is_told_by_its_run(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [*POOL[:2], *pool_rows(5, 3, 9)])
    rows = [{"run": "a", "loss": 1, "file": "a.jsonl"}]
    said = r"line 2: file a\.jsonl: 3 of 5 examples are in no source of data\.candidates \("
    with pytest.raises(OwnRunsError, match=said):
        read(write_runs(tmp_path / "runs.csv", rows))


def test_withdrawn_examples_are_told_as_such(tmp_path: Path) -> None:
    path = write_runs(tmp_path / "runs.csv", good())
    own = RunsSettings(path=str(path))
    with pytest.raises(OwnRunsError, match=r"line 2: .*, 1 of them withdrawn \(data\.withdrawn\)"):
        read_runs(own, LOSS, frozenset(IDS[1:]), frozenset(IDS[:1]))


def test_all_faults_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    rows = [{"run": f"r{i}", "loss": "?", "examples": IDS[0]} for i in range(8)]
    with pytest.raises(OwnRunsError) as error:
        read(write_runs(tmp_path / "runs.csv", rows))
    said = str(error.value)
    assert [int(line) for line in re.findall(r"line (\d+):", said)] == [2, 3, 4, 5, 6]
    assert said.endswith("; and 3 more")


def test_a_broken_row_is_a_fault_of_its_line(tmp_path: Path) -> None:
    path = write_runs(tmp_path / "runs.csv", good())
    path.write_text(path.read_text("utf-8") + "r9,1.0\n", encoding="utf-8")
    with pytest.raises(
        OwnRunsError, match=r"line 5: bad CSV: fewer fields than the header \(2, not 3\)"
    ):
        read(path)


def test_where_every_row_is_broken_it_is_said_why(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f"# mine\nrun,loss,examples\na,1.5,{IDS[0]}\n", encoding="utf-8")
    with pytest.raises(OwnRunsError, match=r"line 2: bad CSV: more fields than the header \(3, no"):
        read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,loss,examples\na,1,b\n", "no column 'run'; it has: name, loss, examples"),
        ("run,los,examples\na,1,b\n", "no column 'loss' (runs.measure); did you mean 'los'?"),
        ("run,loss\na,1\n", "no column 'file' (a file of each run's training data) and no column"),
        ("run,loss,examples\n", "has no run; give one row a run below the columns run, loss, and"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OwnRunsError, match=re.escape(said)):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OwnRunsError, match=r"runs\.path: .*runs\.csv: no such file"):
        read(tmp_path / "runs.csv")


def test_members_keep_order_repeats_and_sources() -> None:
    sources = pd.Series(["a", "b"], index=IDS[:2])
    found = members_table([Run("x", 2, 1.5, (IDS[1], IDS[0], IDS[1]))], sources, "loss")
    assert found["example_id"].tolist() == [IDS[1], IDS[0], IDS[1]]
    assert found["source"].tolist() == ["b", "a", "b"]
    assert found["position"].tolist() == [0, 1, 2]
    assert set(found["loss"]) == {1.5}
    assert set(found["set_id"]) == {set_id_of([IDS[1], IDS[0], IDS[1]])}


# -- the profile's block ---------------------------------------------------------------------------


def test_a_measure_of_the_platform_brings_scale_and_direction(tmp_path: Path) -> None:
    study = load_study(str(write_study(tmp_path, good())))
    assert Target.of(study) == Target("loss", "log", "lower")
    more = {"path": "runs.csv", "measure": "exact_match"}
    study = load_study(str(write_study(tmp_path, good(), runs=more)))
    assert Target.of(study) == Target("exact_match", "logit", "higher")


def test_of_another_measure_the_direction_has_to_be_given(tmp_path: Path) -> None:
    profile = write_study(tmp_path, good(), runs={"measure": "elo"})
    with pytest.raises(MeasureError, match=r"runs\.direction is missing: .*higher elo"):
        Target.of(load_study(str(profile)))
    profile = write_study(tmp_path, good(), runs={"measure": "elo", "direction": "higher"})
    assert Target.of(load_study(str(profile))) == Target("elo", "identity", "higher")


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (
            {"univariate": {}},
            "univariate: needs finetunes, and a study of your own `runs` makes no",
        ),
        ({"validation": {"sizes": [5]}}, "validation: needs finetunes"),
        ({"selection": {"size": "searched"}}, "selection.size: searched: needs finetunes"),
        ({"rule": {"source": "published_v1"}}, "rule.source: published_v1 needs no `runs`"),
        (
            {"rule": {"target": "token_loss"}},
            "rule.target: with `runs`, the rule predicts runs.mea",
        ),
        (
            {"rule": {"points": ["mixtures", "univariate"]}},
            "rule.points: a rule is fitted on `runs`",
        ),
        ({"data": {"candidates": {}}}, "data.candidates is missing: the examples of `runs`"),
        ({"runs": {"measure": "source"}}, "runs.measure: 'source' is the name of another column"),
        ({"runs": {"measure": "mtld"}}, "scoring.indicators: 'mtld' is the name of another column"),
        ({"runs": {"fields": {"output": "a"}}}, "`fields` goes with `format: fields`"),
        ({"runs": None}, "models.base is missing"),
    ],
)
def test_what_does_not_go_with_runs_is_refused(
    tmp_path: Path, blocks: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        load_study(str(write_study(tmp_path, good(), **blocks)))


def test_a_path_is_needed() -> None:
    with pytest.raises(ValidationError, match="path"):
        RunsSettings.model_validate({"measure": "loss"})
