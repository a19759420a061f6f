"""What an earlier rule selected, or an earlier pool held, is told from what is selected now."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.study import Platform, copied


@pytest.fixture
def own(
    whole_study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A finished study with every part, to do something to."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(copied(whole_study, tmp_path / "home"), instance)


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    [check] = [
        c for c in result.get_asset_check_evaluations() if c.check_name == "drawn_by_this_rule"
    ]
    return check


def test_a_size_searched_for_an_earlier_rule_is_not_taken(own: Platform) -> None:
    assert check_of(own.materialize("size_search")).passed
    own.change(rule={"target": {"measure": "loss", "scale": "identity"}})
    assert own.materialize("quality_rule").success
    result = own.materialize("dolly_indicators", "dolly_selection")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "the size of an earlier rule's selection" in str(failure.step_failure_data.error)
    check = check_of(own.materialize("size_search"))
    assert not check.passed
    assert check.blocking
    assert "drawn by an earlier rule; materialize size_samples" in str(check.description)


def test_arms_drawn_from_a_pool_that_grew_in_between_are_not_compared(own: Platform) -> None:
    pool = own.study.pools[0]
    key = own.table("validation_runs")["arm"].iloc[0]
    path = Path(str(own.study.data.unseen[pool].path))
    row = {"instruction": "Why not?", "context": "", "response": "For no reason at all, it is so."}
    path.write_text(path.read_text("utf-8") + json.dumps(row) + "\n", encoding="utf-8")
    assert own.materialize(
        *(f"{pool}_{kind}" for kind in ("dataset", "scores", "indicators"))
    ).success
    names = ("selection_samples", "selection_adapters", "selection_losses")
    assert own.materialize(*names, keys=[key]).success
    check = check_of(own.materialize("validation_runs"))
    assert not check.passed
    assert "selection_samples were drawn from 2 states of the pool" in str(check.description)
    assert check.metadata["drawn by an earlier rule"].value == 0
