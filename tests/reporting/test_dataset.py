"""The selection as a dataset folder, which `datasets` reads, with its card."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from im_assets.reporting.dataset import main
from im_assets.selection.assets import selection_file
from im_assets.selection.selecting import export_jsonl
from im_resources.study import load_study
from im_resources.warehouse import Warehouse
from tests.reporting.tables import fill, make_study


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study that has run, as far as its tables and its exported selection go."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    path = tmp_path / "simulated.yaml"
    settings = make_study().model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    study = load_study(str(path))
    study.folder.mkdir(parents=True)
    warehouse = fill(study.warehouse, study)
    selection = warehouse.read_table("dolly_selection").sort_values("rank")
    export_jsonl(selection.assign(source="unseen"), selection_file(study, "dolly"))
    return path


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_datasets_reads_what_was_selected_in_order(
    profile: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import load_dataset

    folder = tmp_path / "out"
    for _ in range(2):  # an earlier one is replaced
        assert main([str(profile), str(folder), "--format", form]) == 0
    assert str(folder) in capsys.readouterr().out
    found = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    lines = selection_file(load_study(str(profile)), "dolly").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert found["example_id"] == [row["example_id"] for row in rows]
    assert found["output"] == [row["output"] for row in rows]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "data"]


def test_a_url_takes_what_a_folder_takes(
    profile: Path, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main([str(profile), f"{s3}/mine"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(set(printed)) == 1
    found = pd.read_parquet(f"{printed[0]}/data/train.parquet")
    lines = selection_file(load_study(str(profile)), "dolly").read_text(encoding="utf-8")
    ids = [json.loads(line)["example_id"] for line in lines.splitlines()]
    assert found["example_id"].tolist() == ids
    assert main([str(profile), "s3://no-such-bucket/mine"]) == 1
    assert "there is no such bucket" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(profile), f"{s3}/mine", "--push", "me/mine"])
    assert "give its path" in capsys.readouterr().err


def test_the_card_says_rule_evidence_and_settings(profile: Path, tmp_path: Path) -> None:
    assert main([str(profile), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train.parquet"}]
    assert "selected by rule" in card
    assert "log_loss = " in card
    assert "Spearman" in card
    assert "its licence holds for them" in card
    assert "mixtures:\n  kind: random" in card


def test_what_is_not_the_selection_is_not_exported(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(str(profile))
    path = selection_file(study, "dolly")
    before = path.read_text(encoding="utf-8")
    path.write_text("".join(f"{line}\n" for line in before.splitlines()[1:]), encoding="utf-8")
    assert main([str(profile), str(tmp_path / "out")]) == 1
    assert "is not the selection that the warehouse holds" in capsys.readouterr().err
    path.write_text(before, encoding="utf-8")
    warehouse = Warehouse(study.warehouse)
    selection = warehouse.read_table("dolly_selection")
    warehouse.replace_table("dolly_selection", selection.assign(rule_id="another"))
    assert main([str(profile), str(tmp_path / "out")]) == 1
    assert "is of an earlier rule" in capsys.readouterr().err
    path.unlink()
    assert main([str(profile), str(tmp_path / "out")]) == 1
    assert "nothing is selected of dolly yet" in capsys.readouterr().err
    assert main([str(profile), str(tmp_path / "out"), "--pool", "doly"]) == 1
    assert "the study has: dolly" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_stays(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert main([str(profile), str(tmp_path / "out")]) == 1
    assert "thesis.txt, which is not of a dataset" in capsys.readouterr().err


def test_a_project_with_a_readme_and_data_stays(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "project"
    (mine / "data").mkdir(parents=True)
    (mine / "README.md").write_text("# My project")
    assert main([str(profile), str(mine)]) == 1
    assert "README.md, data, which is not of an exported dataset" in capsys.readouterr().err
    assert (mine / "README.md").read_text() == "# My project"
    for _ in range(2):  # its own export is replaced
        assert main([str(profile), str(tmp_path / "out")]) == 0


def test_a_hub_that_cannot_be_reached_is_named(
    profile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main([str(profile), str(tmp_path / "out"), "--push", "me/mine"]) == 1
    said = capsys.readouterr().err
    assert "could not be pushed to me/mine at http://127.0.0.1:9" in said
    assert (tmp_path / "out" / "README.md").exists()
