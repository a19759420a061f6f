"""The table of shares, its sentences, and what LLaMA-Factory reads."""

import numpy as np
import pandas as pd
import pytest
import yaml

from im_assets.rule.target import Target
from im_assets.shares.figures import shares_figure
from im_assets.shares.telling import (
    COLUMNS,
    measured_shares,
    sentence,
    shares_table,
)
from im_assets.shares.trainers import interleaved
from im_resources.study import ProposalSettings

HELD = {"a": 600, "b": 300, "c": 100}
SETTINGS = ProposalSettings(nearness=0.01)


def study(noise: float, rows: int = 30, sources: str = "abc") -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(3)
    r = rng.uniform(size=(rows, len(sources)))
    x = pd.DataFrame(r / r.sum(axis=1, keepdims=True), columns=list(sources))
    worth = np.array([0.7, 0.6, 0.8])[: len(sources)]
    return x, pd.Series(x.to_numpy() @ worth + noise * rng.normal(size=rows))


def told(noise: float, target: Target | None = None, rows: int = 30) -> pd.DataFrame:
    shares, values = study(noise, rows)
    return shares_table(shares, values, HELD, SETTINGS, 0.95, target or Target())


def test_shares_are_counted_of_the_mixtures_that_are_points() -> None:
    samples = pd.DataFrame(
        {"seed": ["s1"] * 4 + ["s2"] * 2 + ["s3"], "source": list("aabc") + list("cc") + ["a"]}
    )
    found = measured_shares(samples, ["s2", "s1"])
    assert list(found.index) == ["s2", "s1"]
    assert found.loc["s1"].to_dict() == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert found.loc["s2"].to_dict() == {"a": 0, "b": 0, "c": 1}


def number(found: pd.DataFrame, source: str, column: str) -> float:
    return float(found[column][source])


def test_what_is_plain_is_called_and_proposed() -> None:
    found = told(0.005).set_index("source")
    assert list(found.reset_index().columns) == list(COLUMNS)
    assert found["verdict"].to_dict() == {
        "a": "not_distinguishable" if number(found, "a", "effect_low") < 0 else "worse",
        "b": "better",
        "c": "worse",
    }
    assert number(found, "b", "proposed_share") > 0.9
    assert found["proposed_share"].sum() == pytest.approx(1)
    share = number(found, "b", "proposed_share")
    assert number(found, "b", "repeated") == pytest.approx(share / 0.3)
    assert (found["repeated"] <= SETTINGS.repeats + 1e-9).all()
    assert (found["gain_high"] < 0).all()
    words = sentence(found.reset_index(), Target())
    assert "better with more of b" in words
    assert "a step that can be told from none" in words
    shown = yaml.safe_load(str(interleaved(found.reset_index())))
    assert shown["dataset"].split(",") == ["a", "b", "c"]
    shares = [float(share) for share in shown["interleave_probs"].split(",")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert shares_figure(found.reset_index(), Target()) is not None


def test_of_a_measure_that_is_better_when_higher_the_other_source_is_proposed() -> None:
    found = told(0.005, Target("exact_match", "identity", "higher")).set_index("source")
    assert found.loc["c", "verdict"] == "better"
    assert found.loc["c", "proposed_share"] == pytest.approx(0.4)  # four times a tenth
    assert found.loc["c", "capped"]
    assert (found["gain_low"] > 0).all()


def test_noise_is_no_proposal_that_can_be_told() -> None:
    found = told(5.0)
    assert set(found["verdict"]) == {"not_distinguishable"}
    words = sentence(found, Target())
    assert "no source is distinguishable" in words
    assert "cannot be told from the data as it is" in words


def test_too_few_mixtures_say_so_and_give_no_number() -> None:
    found = told(0.01, rows=5)
    assert found["effect"].isna().all()
    assert found["proposed_share"].isna().all()
    assert "at least 7 are needed" in sentence(found, Target())
    assert interleaved(found) is None
    assert shares_figure(found, Target()) is None


def test_a_source_that_no_mixture_holds_is_named_and_nothing_is_proposed() -> None:
    shares, values = study(0.005)
    found = shares_table(shares, values, HELD | {"new": 50}, SETTINGS, 0.95, Target())
    assert found["proposed_share"].isna().all()
    assert found.set_index("source")["effect"].notna().to_dict() == {
        "a": True, "b": True, "c": True, "new": False
    }  # fmt: skip
    assert "new is in no measured mixture" in sentence(found, Target())
