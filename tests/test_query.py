"""What a study holds, read from the command line while it runs."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from im_assets.query import main
from im_resources.study import load_study
from im_resources.warehouse import Warehouse

ROWS = pd.DataFrame({"text": ["red \x1b[31m\nalert \u202e", "ñandú"], "value": [0.5, None]})


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    monkeypatch.setenv("IM_PROFILE", "demo")
    warehouse = Warehouse(load_study("demo").warehouse)
    warehouse.replace_table("texts", ROWS)
    return warehouse


@pytest.mark.usefixtures("warehouse")
def test_a_table_shows_no_character_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["SELECT * FROM texts", "--rows", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "text                        value",
        "--------------------------  -----",
        r"red \x1b[31m\nalert \u202e  0.5",
        "2 rows, the first 1 shown (--rows)",
    ]
    assert main(["SELECT text FROM texts WHERE value > 1"]) == 0
    assert capsys.readouterr().out.endswith("0 rows\n")


@pytest.mark.usefixtures("warehouse")
def test_files_hold_the_text_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["FROM texts", "--csv"])
    assert pd.read_csv(io.StringIO(capsys.readouterr().out)).equals(ROWS)
    main(["FROM texts", "--json"])
    out = capsys.readouterr().out
    assert [json.loads(line)["text"] for line in out.splitlines()] == ROWS["text"].tolist()
    assert out.isascii()
    main(["FROM texts", "--parquet", str(tmp_path / "texts.parquet")])
    assert pd.read_parquet(tmp_path / "texts.parquet").equals(ROWS)


def test_it_writes_nothing_and_says_what_is_wrong(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["DROP TABLE texts"]) == 1
    assert "read-only" in capsys.readouterr().err
    assert main(["SELECT * FROM nowhere"]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    assert warehouse.read_table("texts").equals(ROWS)


def test_a_study_that_never_ran_is_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    monkeypatch.setenv("IM_PROFILE", "demo")
    assert main(["SHOW TABLES"]) == 1
    assert "'demo' has not run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
