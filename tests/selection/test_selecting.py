"""Selection: ranked by the rule alone, compared with chance, exported for training."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from im_assets.rule.model import Coefficient, Rule
from im_assets.selection.selecting import (
    compare_with_random,
    export_jsonl,
    ranked_table,
)


def rule(constant: float = 1.0, **slopes: float) -> Rule:
    return Rule(
        source="fitted",
        constant=Coefficient(name="constant", estimate=constant),
        coefficients=tuple(Coefficient(name=n, estimate=b) for n, b in slopes.items()),
    )


def pool(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "example_id": [f"id-{i:03d}" for i in range(count)],
            "instruction": [f"Question {i}?" for i in range(count)],
            "input": "",
            "output": [f"Answer {i}.\nÜber “{i}” 你好\u2028" for i in range(count)],
        }
    )


def indicators(**columns: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    return frame.set_index(pd.Index([f"id-{i:03d}" for i in range(len(frame))]))


RULE = rule(x=1.0)
FOUR = indicators(x=[0.1, 0.2, 0.3, 0.4])


def test_the_table_has_the_rules_value_and_the_order_that_was_given() -> None:
    values = indicators(reward=[0.0, 2.0, 1.0], len_out=[10.0, 30.0, 0.0])
    table = ranked_table(pool(3).iloc[[1, 0]], values[::-1], rule(1.0, reward=-0.5, len_out=0.01))
    assert list(table["example_id"]) == ["id-001", "id-000"]
    assert list(table["rank"]) == [1, 2]
    assert list(table["predicted_log_loss"]) == pytest.approx([0.3, 1.1])
    assert list(table["len_out"]) == [30.0, 10.0]


def test_an_example_without_scores_is_not_dropped_in_silence() -> None:
    with pytest.raises(ValueError, match="reward: 1 of 3 values are missing"):
        ranked_table(pool(3), indicators(reward=[1.0, 2.0]), rule(reward=1.0))
    with pytest.raises(ValueError, match="ppl"):
        ranked_table(pool(2), indicators(reward=[1.0, 2.0]), rule(ppl=1.0))


def test_the_export_reads_back_line_by_line(tmp_path: Path) -> None:
    ranked = ranked_table(pool(4), FOUR, RULE)
    path = tmp_path / "new folder" / "selection.jsonl"
    export_jsonl(ranked, path)
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert len(rows) == 4
    columns = ["instruction", "input", "output", "example_id", "rank", "predicted_log_loss"]
    assert pd.DataFrame(rows)[columns].equals(ranked[columns])
    assert "你好" in path.read_text("utf-8")  # readable, not escaped
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_export_leaves_the_last_one(tmp_path: Path) -> None:
    ranked = ranked_table(pool(4), FOUR, RULE)
    path = tmp_path / "selection.jsonl"
    export_jsonl(ranked, path)
    before = path.read_bytes()
    broken = ranked.astype({"output": object})
    broken.loc[3, "output"] = b"not text"
    with pytest.raises(TypeError):
        export_jsonl(broken, path)
    assert path.read_bytes() == before
    export_jsonl(ranked[:2], path)
    assert path.read_bytes().count(b"\n") == 2


def simulated(count: int = 400, seed: int = 0) -> pd.DataFrame:
    """A ranked pool whose first column follows the rank and whose second does not."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"follows": np.sort(rng.normal(size=count)), "noise": rng.normal(size=count), "same": 2.0}
    )


def test_against_random_a_real_effect_stands_out_and_noise_does_not() -> None:
    table = compare_with_random(simulated(), range(100), ["follows", "noise", "same"], draws=400)
    table = table.set_index("mean of")
    z = table["z"]
    assert z["follows"] < -10
    assert abs(z["noise"]) < 4
    same = table[table.index == "same"]
    assert same[["selected", "random", "random_sd", "z"]].to_numpy().tolist() == [[2, 2, 0, 0]]
    # The spread of means of 100 of 400 drawn without replacement: σ/√n · √((N-n)/(N-1)).
    theory = simulated()["noise"].std(ddof=0) / np.sqrt(100) * np.sqrt(300 / 399)
    assert table["random_sd"]["noise"] == pytest.approx(theory, rel=0.15)


def test_z_is_calibrated_when_the_ranking_is_random() -> None:
    """Over 200 pools without any effect, z has mean 0 and standard deviation 1."""
    z = [
        compare_with_random(simulated(80, seed), range(20), ["noise"], draws=100)["z"].item()
        for seed in range(200)
    ]
    assert abs(np.mean(z)) < 0.25
    assert 0.8 < np.std(z) < 1.25


def test_the_comparison_is_repeatable() -> None:
    first = compare_with_random(simulated(), range(50), ["noise"], draws=20)
    pd.testing.assert_frame_equal(
        first, compare_with_random(simulated(), range(50), ["noise"], draws=20)
    )
    other = compare_with_random(simulated(), range(50), ["noise"], draws=20, seed=1)
    assert other["random"].item() != first["random"].item()
