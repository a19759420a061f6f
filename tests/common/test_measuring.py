"""What a step costs, as metadata of its asset: every asset of a study, and the numbers right."""

import mmap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_assets.common.measuring import (
    COMPUTED,
    EVERY,
    FOUND,
    MEMORY,
    RATE,
    SAVED,
    SECONDS,
    TOKENS,
    Measure,
    measured,
)
from im_resources.usage import count, counting
from tests.language_model.models import write_model
from tests.study import Platform, write_profile


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> list[dict[str, Any]]:
    """The metadata of each materialization of the asset in a run."""
    return [
        {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]


def test_the_memory_of_a_step_is_its_own_and_not_that_of_an_earlier_one() -> None:
    # Not by malloc, which is set to keep what it once had.
    with Measure() as first, mmap.mmap(-1, 300 * 2**20) as block:
        block.write(b"x" * len(block))
        time.sleep(2 * EVERY)
    with Measure() as second:
        time.sleep(EVERY)
    low, high = second.metadata()[MEMORY], first.metadata()[MEMORY]
    assert 250 < high - low < 1000


def test_counts_take_what_other_threads_do_and_end_with_their_block() -> None:
    with counting() as outer:
        with counting() as inner, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: count(tokens=2, found=1), range(100)))
        count(tokens=1, seconds_saved=0.5)
    count(tokens=1000)
    assert (inner.tokens, inner.found, inner.seconds_saved) == (200, 100, 0.0)
    assert (outer.tokens, outer.seconds_saved) == (201, 0.5)


def test_functions_that_return_and_that_yield_are_measured_once() -> None:
    calls: list[str] = []

    @dg.asset
    def returns() -> dg.MaterializeResult[Any]:
        """The description stays."""
        calls.append("returns")
        time.sleep(0.01)
        return dg.MaterializeResult(metadata={"own": 1})

    @dg.asset(deps=[returns], check_specs=[dg.AssetCheckSpec("fine", asset="yields")])
    def yields() -> Iterator[Any]:
        count(tokens=7, computed=1)
        yield dg.AssetCheckResult(passed=True)
        yield dg.Output(1, metadata={"own": 2})

    twice = measured(measured([returns, yields]))
    result = dg.materialize(twice, resources={"io_manager": dg.mem_io_manager})
    (first,), (second,) = metadata_of(result, "returns"), metadata_of(result, "yields")
    assert (first["own"], second["own"], len(calls)) == (1, 2, 1)
    assert first[SECONDS] >= 0.01
    assert TOKENS not in first
    assert (second[TOKENS], second[COMPUTED], second[FOUND]) == (7, 1, 0)
    assert returns.op.description == "The description stays."


def test_a_step_that_fails_fails_as_before() -> None:
    @dg.asset
    def fails() -> None:
        raise ValueError("its own error")

    with pytest.raises(ValueError, match="its own error"):
        dg.materialize(measured([fails]))


@pytest.mark.model
@pytest.mark.slow
def test_every_asset_of_a_study_tells_what_it_cost_and_what_caches_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "var"))
    profile = write_profile(tmp_path, write_model(tmp_path / "model"))
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(profile, instance)
        first, second = platform.run_study(), platform.run_study()
        assert first.success
        made = {str(e.asset_key) for e in first.get_asset_materialization_events() if e.asset_key}
        assert len(made) > 5
        for event in first.get_asset_materialization_events():
            numbers = event.materialization.metadata
            assert float(str(numbers[SECONDS].value)) > 0, event.asset_key
            assert float(str(numbers[MEMORY].value)) > 50
        for asset, results in (("finetuned_adapters", 8), ("eval_losses", 8)):
            new, again = metadata_of(first, asset), metadata_of(second, asset)
            assert len({m[SECONDS] for m in new}) == 1  # a partition tells what its step cost
            assert (new[0][COMPUTED], new[0][FOUND]) == (results, 0)
            assert (again[0][COMPUTED], again[0][FOUND]) == (0, results)
            assert new[0][TOKENS] > again[0][TOKENS] == 0
            assert new[0][RATE] > 0
        trained = platform.table("finetuned_adapters")
        assert metadata_of(first, "finetuned_adapters")[0][TOKENS] == trained["tokens"].sum()
        saved = metadata_of(second, "finetuned_adapters")[0][SAVED]
        assert saved == pytest.approx(trained["seconds"].sum(), abs=0.01)
        scores = metadata_of(first, "example_scores")[0]
        assert scores[COMPUTED] == 30 * 3
        assert metadata_of(second, "example_scores")[0][FOUND] == 30 * 3
        versions = [
            {
                event.asset_key: (event.materialization.tags or {}).get("dagster/data_version")
                for event in run.get_asset_materialization_events()
            }
            for run in (first, second)
        ]
        assert versions[0] == versions[1]
