"""The plan of a small study: before anything, on the way, at the end, and after a change."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_assets.common.measuring import COMPUTED
from im_assets.planning.history import changed, code_versions, ran
from im_assets.planning.planning import NO_ESTIMATE, plan_of
from im_assets.planning.probe import CannotProbe, kept_probe, measure
from im_assets.planning.telling import notes, summary, text, values
from im_assets.planning.work import Plan, Work
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import PROJECT_ROOT
from im_resources.study.environment import STATE
from tests.language_model.models import write_model
from tests.processes import Forked
from tests.study import Platform, history, write_profile

pytestmark = pytest.mark.model

VALIDATION = {
    "strategies": {"rule": "rule", "random": "random"}, "sizes": [6], "seeds": 2, "deciles": 0,
    "noise_repeats": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A study that the tests below take further and further, in their order."""
    folder = tmp_path_factory.mktemp("plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IM_HOME", str(folder / "var"))
        profile = write_profile(
            folder,
            write_model(folder / "model"),
            univariate={"indicators": ["len_out"], "bins": 4},
            validation=VALIDATION,
        )
        with history(folder / "history") as instance:
            yield Platform(profile, instance)


def plan(platform: Platform, with_history: bool = True) -> Plan:
    study = platform.study
    versions = code_versions(study)
    known = (ran(study, platform.instance, versions), changed(study, platform.instance, versions))
    store = AdapterStore(study.folder / "adapters")
    return plan_of(
        study, platform.warehouse, store, GpuResource(), *(known if with_history else ())
    )


def work(found: Plan, asset: str) -> Work:
    return next(work for work in found.work if work.asset == asset)


def left(found: Plan, *assets: str) -> list[tuple[int | None, bool]]:
    return [(work(found, asset).left, work(found, asset).at_most) for asset in assets]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        # Whoever reads the warehouse takes a turn, and says who it is.
        if path.is_file() and path.suffix != ".lock"
    }


def test_before_anything_only_upper_bounds_are_known_and_nothing_is_made(
    platform: Platform,
) -> None:
    found = plan(platform)
    assert not platform.study.folder.exists()
    assert left(found, "candidate_datasets", "example_scores") == [(None, False), (None, True)]
    assert left(found, "finetuned_adapters", "eval_losses") == [(8, True), (8, True)]
    trained = work(found, "finetuned_adapters")
    assert (trained.size, trained.tokens) == (8 * 6, 8 * 6 * 48)
    assert trained.tokens_at_most
    assert "3 files" in work(found, "candidate_datasets").note
    assert found.seconds is None
    assert found.missing == (NO_ESTIMATE,)
    assert summary(found) == (
        "examples to score: not known before the data are read, at most 22 finetunes, "
        "at most 23 evaluations"
    )


def test_a_probe_is_measured_with_the_study_s_own_rows_and_kept(platform: Platform) -> None:
    study, gpu = platform.study, GpuResource()
    probe = measure(study, gpu, platform.warehouse)
    assert kept_probe(study, gpu) == probe
    assert sorted(contents(study.folder)) == ["probe.json"]
    low, high = probe.example_seconds
    assert 0 < low < high
    # An example of the study has fewer tokens than are allowed, and more than none.
    assert 5 < probe.example_tokens <= study.models.max_length
    assert 5 < probe.read_tokens <= study.models.max_length
    assert probe.trial_bytes > 1000
    found = plan(platform)
    seconds = work(found, "finetuned_adapters").seconds
    assert seconds is not None
    # Four of eight finetunes one after the other, on as many workers as there are.
    rounds = -(-8 // gpu.workers)
    assert seconds == pytest.approx((low * 6 * rounds, high * 6 * rounds))
    assert found.seconds is None  # how many are to be scored is not known yet
    assert "probe" in text(found)
    platform.change(finetuning={"batch_size": 2})
    assert kept_probe(platform.study, gpu) is None
    platform.change(finetuning={"batch_size": 3})


def test_once_the_data_are_read_the_counts_are_exact(platform: Platform) -> None:
    result = platform.run("data")
    assert result.success
    before = contents(platform.study.folder)
    found = plan(platform)
    assert contents(platform.study.folder) == before
    assert left(found, "candidate_datasets", "dolly_dataset") == [(0, False), (0, False)]
    assert left(found, "example_scores", "dolly_scores") == [(30, False), (24, False)]
    assert left(found, "finetuned_adapters", "eval_losses", "base_losses") == [
        (8, False), (8, False), (1, False)
    ]  # fmt: skip
    # What the rule will choose is not known before there is one.
    assert left(found, "univariate_adapters", "selection_adapters") == [(4, True), (10, True)]
    assert found.seconds is not None
    assert found.disk
    [made] = [
        event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("study_plan")
    ]
    assert made["finetunes left"].value == 22
    assert str(made["plan"].value).startswith(
        "54 examples to score, at most 22 finetunes, at most 23 evaluations, "
    )
    row = platform.table("study_plan").set_index("asset").to_dict("index")["finetuned_adapters"]
    assert (row["total"], row["there"], row["left"]) == ("8", "0", "8")


def test_what_a_part_has_made_is_there(platform: Platform) -> None:
    keys = [f"seed-{n:03d}" for n in range(3)]
    names = ("mixed_samples", "finetuned_adapters", "base_losses", "eval_losses")
    assert platform.materialize(*names, keys=keys).success
    found = plan(platform)
    assert left(found, "finetuned_adapters", "eval_losses", "base_losses") == [
        (5, False), (5, False), (0, False)
    ]  # fmt: skip
    assert work(found, "finetuned_adapters").found == 3
    # Their own times are better than those of a probe.
    assert "the 3 finetunes that are there" in found.rates
    assert "the last run of 3 evaluations" in found.rates


def test_a_run_computes_what_the_plan_says(platform: Platform) -> None:
    said = plan(platform)
    result = platform.run("study")
    assert result.success
    computed: dict[str, Any] = {
        str(event.asset_key and event.asset_key.to_user_string()): event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    for asset in ("finetuned_adapters", "eval_losses", "base_losses"):
        assert computed[asset][COMPUTED].value == work(said, asset).left, asset
    for asset in ("example_scores", "dolly_scores"):
        assert computed[asset]["scored in this run"].value == work(said, asset).left, asset


def test_after_a_whole_study_nothing_is_left(platform: Platform) -> None:
    platform.run_all()
    found = plan(platform)
    assert found.nothing_left
    assert [w.asset for w in found.work if w.left != 0 or w.at_most] == []
    assert summary(found) == "nothing is left to compute"
    assert (found.seconds, found.disk) == ((0, 0), 0)


def test_a_changed_setting_leaves_what_it_changes(platform: Platform) -> None:
    platform.change(mixtures={"seeds": 10})
    found = plan(platform)
    assert left(found, "finetuned_adapters", "eval_losses") == [(2, False), (2, False)]
    assert left(found, "example_scores", "univariate_adapters") == [(0, False), (0, False)]
    assert left(found, "selection_adapters") == [(10, True)]  # by a rule that will be another
    platform.change(mixtures={"seeds": 8}, finetuning={"epochs": 2})
    found = plan(platform)
    assert left(found, "finetuned_adapters", "eval_losses") == [(8, False), (8, False)]
    assert left(found, "example_scores", "base_losses") == [(0, False), (0, False)]
    assert work(found, "finetuned_adapters").size == 8 * 6 * 2
    platform.change(finetuning={"epochs": 1}, cleaning={"max_chars": 5000})
    found = plan(platform)
    assert set(found.changed) == {"candidate_datasets", "dolly_dataset"}
    assert "candidate_datasets, dolly_dataset to be read again" in summary(found)
    assert any("settings that it is made from were changed" in line for line in notes(found))
    platform.change(cleaning=None)
    assert plan(platform).nothing_left


def test_files_that_were_changed_since_are_told(platform: Platform) -> None:
    path = Path(platform.study.data.candidates["food"].path)  # type: ignore[arg-type]
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime + 10_000_000))
    found = plan(platform)
    assert set(found.changed) == {"candidate_datasets"}
    assert "its files were changed" in work(found, "candidate_datasets").note
    os.utime(path, (stat.st_atime, stat.st_mtime))


def test_of_a_model_that_is_not_in_the_cache_nothing_is_guessed(platform: Platform) -> None:
    platform.change(models={"base": {"hub": "nobody/has-this"}})
    found = plan(platform)
    [said] = found.missing
    assert said == (
        "models.base: nobody/has-this is not in the local cache: no estimate is possible"
    )
    assert not found.unmeasured
    assert left(found, "finetuned_adapters") == [(8, True)]
    assert work(found, "finetuned_adapters").seconds is None
    with pytest.raises(CannotProbe, match="not in the local cache"):
        measure(platform.study, GpuResource(), platform.warehouse)
    platform.change(models={"base": {"path": str(platform.profile.parent / "model")}})


def test_the_values_are_json(platform: Platform) -> None:
    platform.change(mixtures={"seeds": 9})
    found = json.loads(json.dumps(values(plan(platform))))
    platform.change(mixtures={"seeds": 8})
    [trained] = [w for w in found["work"] if w["asset"] == "finetuned_adapters"]
    assert (trained["total"], trained["found"], trained["left"]) == (9, 8, 1)
    assert len(found["seconds"]) == 2


@pytest.mark.slow
def test_the_command_only_tells(tmp_path: Path) -> None:
    profile = write_profile(tmp_path, write_model(tmp_path / "model"))
    home = tmp_path / "var"
    environment = os.environ | {"IM_HOME": str(home), "IM_PROFILE": str(profile)}
    environment.pop(STATE)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "im_assets.run", *arguments],
            cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = json.loads(run("--plan", "--json"))
    assert sorted(contents(home)) == ["tiny/probe.json"]
    assert "at most 8 finetunes, at most 9 evaluations" in said["summary"]
    log = tmp_path / "log"
    variables = {"IM_HOME": str(home), "IM_PROFILE": str(profile)}
    whole = Forked("im_assets.run", log=log, variables={**variables, STATE: ""})
    code = whole.wait()
    out = log.read_text(encoding="utf-8")
    assert code == 0, out
    assert "study_plan" in out
    assert "54 examples to score, 8 finetunes, 9 evaluations" in out
    before = contents(home)
    assert run("--plan").startswith("plan of the study 'tiny': nothing is left to compute\n")
    assert contents(home) == before
