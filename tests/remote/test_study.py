"""A whole study whose files are at a URL, from its finetunes to what it forgets."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from im_resources.deployment.making import adapters_of, exports_of
from im_resources.remote import Place
from tests.experiments.test_growing import trained_now
from tests.study import Platform, write_profile


@pytest.fixture
def platform(
    s3: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    deployment = tmp_path / "remote.yaml"
    deployment.write_text(f"name: remote\nfiles: {s3}\n", encoding="utf-8")
    monkeypatch.setenv("IM_DEPLOYMENT", str(deployment))
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(write_profile(tmp_path, tiny_folder), instance)


def test_a_study_keeps_its_files_at_a_url(platform: Platform, s3: str) -> None:
    result = platform.run_study()
    assert result.success
    study = platform.study
    trials = platform.table("finetuned_adapters").set_index("seed")["trial_id"]
    assert set(adapters_of(study).manifests()) == set(trials)
    place = Place(f"{s3}/{study.name}/exports")
    names = {name.split("/")[0] for name in place.listing()}
    assert names == {"quality_rule", "selection"}
    [made] = result.asset_materializations_for_node(f"{study.pools[0]}_selection")
    published = str(made.metadata["published"].value)
    local = (study.folder / "selection.jsonl").read_bytes()
    assert Place(published).read("selection.jsonl") == local

    # Another machine: nothing is trained again, and what it evaluates is fetched.
    shutil.rmtree(study.folder / "adapters")
    again = platform.materialize("finetuned_adapters")
    assert again.success
    assert trained_now(again) == set()
    assert not list((study.folder / "adapters").glob("[!.]*"))
    adapters_of(study).there(str(trials.iloc[0]))
    assert (study.folder / "adapters" / str(trials.iloc[0])).is_dir()

    # What is forgotten is so at the URL too; the rule holds no example.
    samples = platform.table("mixed_samples")
    gone = str(samples["example_id"].iloc[0])
    hit = set(samples.loc[samples["example_id"] == gone, "seed"])
    path = platform.profile.parent / "gone.txt"
    path.write_text(f"{gone}\n", encoding="utf-8")
    platform.change(data={"withdrawn": {"path": str(path), "forget": True}})
    assert platform.run("data").success
    assert set(adapters_of(study).manifests()) == {t for s, t in trials.items() if s not in hit}
    stored = Place(f"{s3}/{study.name}/adapters").listing()
    for seed, trial in trials.items():
        assert any(name.startswith(f"{trial}/") for name in stored) == (seed not in hit)
    remote = exports_of(study).remote
    assert remote is not None
    assert list(remote.listed().manifests) == ["quality_rule"]
