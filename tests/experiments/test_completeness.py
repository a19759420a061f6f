"""What a run of some partitions leaves out is said before it trains."""

from pathlib import Path

import dagster as dg
import pytest

from tests.study import Platform, write_profile

SEEDS = [f"seed-{number:03d}" for number in range(8)]
MIXTURES = ("mixed_samples", "finetuned_adapters", "eval_losses")


def told(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    found = [e for e in result.get_asset_check_evaluations() if "complete" in e.check_name]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
def test_losses_of_earlier_settings_do_not_count(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "var"))
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(write_profile(tmp_path, tiny_folder), instance)
        assert platform.run_study().success
        again = platform.materialize(*MIXTURES, keys=SEEDS[:3])
        assert told(again).passed

        platform.change(finetuning={"learning_rate": 1e-3})
        some = told(platform.materialize(*MIXTURES, keys=SEEDS[:3]))
        assert not some.passed
        assert some.severity == dg.AssetCheckSeverity.WARN
        assert f"other settings: {', '.join(SEEDS[3:])}" in str(some.description)

        drawn = told(platform.materialize("mixed_samples"))
        assert not drawn.passed, "drawing alone trains nothing"
        assert told(platform.materialize(*MIXTURES)).passed
