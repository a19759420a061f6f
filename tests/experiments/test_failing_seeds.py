"""A seed that fails does not fail its neighbours, and several runs do not train a trial twice."""

import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.experiments.finetuning import HOPELESS, FinetuneError, finetune_all
from im_assets.experiments.trainers import lora as trainer
from im_resources.adapter_store import AdapterStore
from im_resources.language_model import lora
from im_resources.study import load_study
from tests.experiments import small_study
from tests.experiments.small_study import gpu, mixtures
from tests.study import Platform, write_profile

ADAPTERS = dg.AssetKey("finetuned_adapters")
assert trainer  # registers itself


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception, *seeds: int) -> list[int]:
    """Let the finetunes of these seeds fail; the seeds that are tried, as they are."""
    tried: list[int] = []
    train = lora.train_adapter

    def failing(adapter: Any, encoded: Any, settings: Any, seed: int, *rest: Any) -> Any:
        tried.append(seed)
        if seed in seeds:
            raise error
        return train(adapter, encoded, settings, seed, *rest)

    monkeypatch.setattr(lora, "train_adapter", failing)
    return tried


def test_the_other_seeds_are_made_recorded_and_not_made_again(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    profile = write_profile(tmp_path, tiny_folder)
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(profile, instance)
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, FloatingPointError("the loss is nan at step 2"), 1)
            assert not platform.run_study().success
        made = instance.get_materialized_partitions(ADAPTERS)
        assert made == {f"seed-{n:03d}" for n in range(8) if n != 1}
        before = platform.table("finetuned_adapters")
        assert set(before["seed"]) == made
        assert not platform.warehouse.has_table("eval_losses")

        assert platform.run_study().success
        after = platform.table("finetuned_adapters")
        trained = {
            str(event.partition): event.metadata["trained in this run"].value
            for record in instance.fetch_materializations(ADAPTERS, limit=8).records
            if (event := record.asset_materialization) is not None
        }
        assert trained == {f"seed-{n:03d}": n == 1 for n in range(8)}
        kept = after[after["seed"].isin(made)].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, before)
        assert not platform.stale()


@pytest.fixture
def profile(tmp_path: Path, tiny_folder: Path) -> str:
    return small_study.write_profile(tmp_path, {"path": str(tiny_folder)})


def test_the_error_names_each_seed_that_failed_and_why(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, FloatingPointError("the loss is nan at step 2"), 1, 3)
    done = finetune_all(mixtures(), load_study(profile), gpu(), AdapterStore(tmp_path / "a"))
    with pytest.raises(FinetuneError, match="2 of 4 finetunes failed; ") as raised:
        list(done)
    reason = "FloatingPointError: the loss is nan at step 2"
    assert f"seed-001: {reason}; seed-003: {reason}" in str(raised.value)
    assert raised.value.failed.keys() == {"seed-001", "seed-003"}


def test_where_none_succeeds_the_rest_is_not_tried(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, RuntimeError("no such layer"), 0, 1, 2, 3)
    done = finetune_all(mixtures(), load_study(profile), gpu(), AdapterStore(tmp_path / "a"))
    with pytest.raises(FinetuneError, match=f"{HOPELESS} of 4 finetunes failed, 1 were given up"):
        list(done)


def test_what_hits_every_seed_is_raised_at_once(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = fail(monkeypatch, OSError(28, "No space left on device"), 0)
    done = finetune_all(mixtures(), load_study(profile), gpu(), AdapterStore(tmp_path / "a"))
    with pytest.raises(OSError, match="No space left"):
        list(done)
    assert tried in ([0], [0, 1])  # the next one may have begun; it ends at its next step


def test_two_at_once_train_each_trial_once(tmp_path: Path, profile: str) -> None:
    store, trained = AdapterStore(tmp_path / "a"), []

    def run() -> None:
        slowly = finetune_all(
            mixtures(), load_study(profile), gpu(), store, lambda *_: time.sleep(0.05)
        )
        trained.extend([key for key, one in slowly if one.now])

    both = [threading.Thread(target=run) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(trained) == sorted(mixtures())
