"""landed_files as users meet it: what the catalog tells of a landing, and a check that fails."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from im_assets.landing.assets import definitions, landing_asset
from im_assets.landing.folder import LandingError
from im_resources.study import ProfileError, Study, load_study
from im_resources.warehouse import Warehouse, WarehouseResource
from tests.landing.places import Place, landing_study, local, rows


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return local(tmp_path / "landing")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def landed(
    study: Study, instance: dg.DagsterInstance, signatures: list[str] | None = None
) -> dg.ExecuteInProcessResult:
    class Given(dg.ConfigurableResource[Study]):
        def create_resource(self, context: dg.InitResourceContext) -> Study:
            return study

    assert study.landing is not None
    config: dict[str, Any] = {"signatures": signatures} if signatures is not None else {}
    return dg.materialize(
        [landing_asset(study.landing)],
        instance=instance,
        resources={"study": Given(), "warehouse": WarehouseResource(path=str(study.warehouse))},
        run_config={
            "ops": {"landed_files": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def told(result: dg.ExecuteInProcessResult) -> tuple[dict[str, Any], dg.AssetCheckEvaluation, str]:
    """Metadata, check, and data version."""
    (event,) = result.asset_materializations_for_node("landed_files")
    (check,) = result.get_asset_check_evaluations()
    version = (event.tags or {})["dagster/data_version"]
    return {name: value.value for name, value in event.metadata.items()}, check, version


def test_a_landing_tells_of_its_files(place: Place, instance: dg.DagsterInstance) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a", "b", ""))
    place.put("terse/same.jsonl", rows("a", "b", ""))
    place.put("tersse/a.jsonl", rows("a"))
    metadata, check, _ = told(landed(study, instance))
    assert check.passed
    assert {name: metadata[name] for name in ("landing", "files", "admitted", "rejected")} == {
        "landing": 1,
        "files": 2,
        "admitted": 1,
        "rejected": 0,
    }
    assert (metadata["rows in"], metadata["rows admitted"]) == (3, 2)
    assert metadata["rows unusable, by kind"] == {"unreadable": 1}
    assert metadata["landed before"] == {"terse/same.jsonl": "a.jsonl"}
    assert metadata["left alone"] == {"tersse/": "no source or pool has this name"}
    (name, sha256), *_ = metadata["hashes"].items()
    assert name == "terse/a.jsonl"
    assert Warehouse(study.warehouse).read_table("landed_files")["sha256"].tolist() == [sha256]


def test_a_rejected_file_fails_the_check_until_the_next_landing(
    place: Place, instance: dg.DagsterInstance
) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))
    _, check, first = told(landed(study, instance))
    assert check.passed
    place.put("terse/b.jsonl", b"")
    _, check, second = told(landed(study, instance))
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "terse/b.jsonl: source 'terse': b.jsonl is empty" in (check.description or "")
    assert second == first  # nothing that follows has to be made again
    _, check, _ = told(landed(study, instance))
    assert not check.passed  # nothing has landed since
    place.put("terse/b.jsonl", rows("b"))
    _, check, third = told(landed(study, instance))
    assert check.passed
    assert third != first


def test_a_rejection_is_told_although_the_run_died_before_it_was(
    place: Place, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = landing_study(place)
    place.put("terse/b.jsonl", b"")
    with monkeypatch.context() as patch:
        patch.setattr("im_assets.landing.assets.metadata_of", None)
        assert not landed(study, instance).success
    place.put("terse/c.jsonl", rows("c"))
    metadata, check, _ = told(landed(study, instance))
    assert not check.passed
    assert metadata["landing"] == 1


def test_only_files_that_the_sensor_saw_twice_are_taken(
    place: Place, instance: dg.DagsterInstance
) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))
    (arrival,) = place.folder.look(["terse"]).arrivals
    place.put("terse/late.jsonl", rows("late"))
    place.put("terse/marked.jsonl", rows("marked"))
    place.put("terse/marked.jsonl.done", b"")
    metadata, _, _ = told(landed(study, instance, [arrival.signature]))
    assert list(metadata["hashes"]) == ["terse/a.jsonl", "terse/marked.jsonl"]
    assert list(place.files()) == ["terse/late.jsonl"]


def test_without_a_sensor_it_looks_twice(
    place: Place, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = landing_study(place, settle_seconds=17)
    place.put("terse/a.jsonl", rows("a"))
    place.put("terse/grows.jsonl", rows("b"))
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        place.put("terse/grows.jsonl", rows("b", "c"))

    monkeypatch.setattr("im_assets.landing.assets.time", SimpleNamespace(sleep=sleep))
    metadata, _, _ = told(landed(study, instance))
    assert waited == [17]
    assert list(metadata["hashes"]) == ["terse/a.jsonl"]


def test_the_table_is_there_before_anything_has_landed(
    place: Place, instance: dg.DagsterInstance
) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl.part", b"")
    metadata, check, _ = told(landed(study, instance))
    assert (metadata["landing"], check.passed) == (0, True)
    assert Warehouse(study.warehouse).read_table("landed_files").empty


def test_a_study_without_a_landing_folder_has_no_such_asset() -> None:
    assert not list(definitions(load_study("demo")).assets or ())


def test_an_unknown_url_is_an_error_when_the_code_loads(place: Place) -> None:
    with pytest.raises(LandingError, match="nope://"):
        definitions(landing_study(Place("nope://x")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("candidates: {both: {path: a.jsonl}}\n  unseen: {both: {path: b.jsonl}}", "'both' names"),
        ("candidates: {rejected: {path: a.jsonl}}", "rejected/ is the folder"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, data: str, message: str
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(f"extends: demo\nname: mine\ndata:\n  {data}\n", encoding="utf-8")
    assert load_study(str(profile)).landing is None
    with profile.open("a") as file:
        file.write("landing: {folder: /data/landing}\n")
    with pytest.raises(ProfileError, match=message):
        load_study(str(profile))
