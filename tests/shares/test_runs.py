"""Your own runs in a CSV: what they say of the shares, and what is wrong with the file."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from im_assets.shares.runs import main, read_runs


def write(path: Path, counts: bool = False, rows: int = 30) -> Path:
    rng = np.random.default_rng(0)
    r = rng.uniform(size=(rows, 3))
    shares = r / r.sum(axis=1, keepdims=True)
    loss = np.exp(shares @ [0.7, 0.6, 0.8] + 0.003 * rng.normal(size=rows))
    frame = pd.DataFrame(shares, columns=["code", "chat", "maths"])
    if counts:
        frame = (frame * 10_000).round().astype(int)
    frame.insert(0, "run", [f"run-{i}" for i in range(rows)])
    frame.assign(loss=loss).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("counts", [False, True])
def test_runs_give_effects_and_a_proposal(
    tmp_path: Path, counts: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path / "runs.csv", counts), tmp_path / "out"
    sizes = ["--sizes", "code=600", "chat=300", "maths=100"]
    assert main([str(path), *sizes, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "better with more of chat" in said
    assert "By 30 mixtures" in said
    found = pd.read_csv(out / "shares.csv").set_index("source")
    assert found["proposed_share"].sum() == pytest.approx(1)
    assert found["proposed_share"].idxmax() == "chat"
    mix = yaml.safe_load((out / "llama_factory.yaml").read_text(encoding="utf-8"))
    assert mix["dataset"] == "chat,code,maths"


def test_without_sizes_there_are_effects_and_no_proposal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write(tmp_path / "runs.csv"))]) == 0
    said = capsys.readouterr().out
    assert "better with more of chat" in said
    assert "how many examples each source has is not known" in said
    assert "proposed_share" not in said


def test_a_metric_that_is_better_when_higher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.csv"
    frame = pd.read_csv(write(path))
    frame.assign(accuracy=1 - frame["loss"] / 10).drop(columns="loss").to_csv(path, index=False)
    options = ["--measure", "accuracy", "--direction", "higher", "--scale", "identity"]
    assert main([str(path), *options]) == 0
    assert "better with more of chat" in capsys.readouterr().out


def test_shares_are_normalized_and_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("a,b,loss\n1,3,2.0\n50,50,1.5\n", encoding="utf-8")
    shares, values = read_runs(path, "loss", ["a", "b"])
    assert shares.to_dict("index") == {2: {"a": 0.25, "b": 0.75}, 3: {"a": 0.5, "b": 0.5}}
    assert values.to_dict() == {2: 2.0, 3: 1.5}


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("a,b,los\n1,2,3\n", [], "no column 'loss'; did you mean 'los'"),
        ("a,b,loss\n1,2,3\n1,x,3\n", ["--sources", "a", "b"], "line 3: b is 'x', no number"),
        ("a,b,loss\n1,2,3\n-1,2,3\n", [], r"line 3: shares \[-1.0, 2.0\] are negative"),
        ("a,b,loss\n0,0,3\n", [], "line 2: shares .* of nothing"),
        ("a,b,loss\n1,2,nan\n", [], "line 2: loss is 'nan', no number"),
        ("a,name,loss\n1,x,3\n", [], "at least two sources are needed"),
        ("a,b,loss\n1,2,3\n", ["--sizes", "a=5"], "how many examples has b"),
        ("a,b,loss\n1,2,3\n", ["--sizes", "a=5", "c=6"], "--sizes c=6: write name=number"),
        ("a,b,loss\n1,2,-3\n", [], "only positive values have a logarithm"),
        ("", [], "no column 'loss'"),
        ("a,b,loss\n1,2,3,4\n", [], "line 2: more fields than the 3 columns"),
        ("a,b,loss\n1,2\n", ["--sources", "a", "b"], "line 2: loss is None, no number"),
        ("a,b,seed,loss\n1,2,7,3\n1,2,70,3\n", [], "sum to 10 to 73 in a row"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path,
    text: str,
    options: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    assert main([str(path), *options, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert re.search(reason, said), said
    assert not (tmp_path / "out").exists()


def test_too_few_runs_say_how_many_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write(tmp_path / "runs.csv", rows=5))]) == 0
    assert "at least 7 are needed" in capsys.readouterr().out
    assert main([str(tmp_path / "none.csv")]) == 1
    assert "cannot be read as CSV" in capsys.readouterr().err
