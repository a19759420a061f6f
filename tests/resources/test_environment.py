"""Each study has its own history, whichever way Dagster is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from im_assets.dev import workspace_file
from im_resources.study import PROJECT_ROOT, load_study
from im_resources.study.environment import (
    HistoryError,
    check_history,
    earlier_history,
    enter_study,
    environment,
    in_a_new_shell,
)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty IM_HOME, and a shell in which nothing else is set."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("IM_PROFILE", "demo")
    monkeypatch.delenv("DAGSTER_STATE")
    return tmp_path / "var"


def mine(folder: Path) -> Path:
    """A profile of the study ``mine``."""
    path = folder / "mine.yaml"
    path.write_text("{extends: demo, name: mine}", encoding="utf-8")
    return path


def in_a_shell(folder: Path, script: str, **variables: str) -> list[str]:
    """What a POSIX shell prints, line by line, in which ``$env`` is ``make -s env``."""
    python = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-ec", f'env() {{ make -s -C "{PROJECT_ROOT}" env BIN="{python}"; }}\n{script}'],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "MAKEFLAGS"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_shell_gets_the_history_of_its_study(home: Path, tmp_path: Path) -> None:
    lines = in_a_shell(
        tmp_path,
        'eval "$(env)"; echo "$DAGSTER_STATE"; echo "$DAGSTER_HOME"\n'
        f'export IM_PROFILE="{mine(tmp_path)}"; eval "$(env)"; echo "$DAGSTER_STATE"',
    )
    assert lines == [
        str(home / "demo" / "dagster"),
        str(PROJECT_ROOT),
        str(home / "mine" / "dagster"),
    ]


def test_a_folder_with_blanks_and_quotes_reaches_the_shell(home: Path, tmp_path: Path) -> None:
    odd = tmp_path / "it's my $HOME"
    lines = in_a_shell(tmp_path, 'eval "$(env)"; echo "$DAGSTER_STATE"', IM_HOME=str(odd))
    assert lines == [str(odd / "demo" / "dagster")]


def test_a_profile_is_found_from_another_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IM_PROFILE", "mine.yaml")
    study, variables = environment()
    assert study.name == "mine"
    assert variables["IM_PROFILE"] == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize("written", ["demo", "demo.yaml", "profiles/demo", "profiles/demo.yaml"])
def test_a_name_with_or_without_its_end_and_a_path_are_one_profile(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.chdir(tmp_path)  # paths are looked for from the project's root, too
    monkeypatch.setenv("IM_PROFILE", written)
    study, variables = environment()
    assert (study.name, variables["IM_PROFILE"]) == ("demo", "demo")


def test_a_file_that_lies_here_never_stands_for_a_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine(tmp_path).rename(tmp_path / "demo.yaml")
    monkeypatch.chdir(tmp_path)
    assert environment()[0].name == "demo"
    monkeypatch.setenv("IM_PROFILE", "demo.yaml")
    assert environment()[0].name == "mine"


def test_a_command_that_is_printed_opens_the_study_in_a_new_shell(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "it's my $HOME"
    odd.mkdir()
    mine(odd)
    monkeypatch.setenv("IM_PROFILE", str(odd / "mine.yaml"))
    command = in_a_new_shell(f'make -s env BIN="{Path(sys.executable).parent}"')
    done = subprocess.run(
        ["sh", "-ec", f'eval "$({command})"; echo "$IM_PROFILE"; echo "$DAGSTER_STATE"'],
        cwd=PROJECT_ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(odd / "mine.yaml"), str(home / "mine" / "dagster")]


def test_another_profile_of_the_same_name_is_told_of(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", os.environ["DAGSTER_HOME"])
    monkeypatch.delenv("DAGSTER_STATE", raising=False)
    enter_study()
    monkeypatch.setenv("IM_PROFILE", "demo_full")  # more of the same study, of the same data
    enter_study()
    assert capsys.readouterr().out == ""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{extends: demo, data: {candidates: {mine: {path: mine.jsonl}}}}", encoding="utf-8"
    )
    monkeypatch.setenv("IM_PROFILE", str(path))
    enter_study()
    said = capsys.readouterr().out
    assert f"the study 'demo' in {home / 'demo'} was made by the profile demo_full" in said
    assert "give it a `name` of its own" in said


def test_a_wrong_profile_is_a_message_and_no_traceback(home: Path) -> None:
    done = python(
        "from im_resources.study.environment import main; main()", IM_PROFILE="demmo", PYTHONPATH=""
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "did you mean 'demo'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_variables_are_told_without_importing_dagster(home: Path) -> None:
    code = "import sys, im_resources.study.environment as e; e.main(); assert 'dagster' not in sys."
    assert python(code + "modules").returncode == 0


def test_definitions_refuse_the_history_of_another_study(home: Path, tmp_path: Path) -> None:
    other = {"IM_PROFILE": str(mine(tmp_path)), "DAGSTER_STATE": str(home / "demo" / "dagster")}
    refused = python("import im_assets.definitions", **other)
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    for part in ("'demo'", "'mine'", str(home / "mine" / "dagster"), 'eval "$(make -s env)"'):
        assert part in last


@pytest.mark.parametrize("state", ["demo/dagster", "../elsewhere", "demo/../demo/dagster"])
def test_its_own_history_and_one_elsewhere_are_accepted(
    home: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    check_history(load_study("demo"))
    monkeypatch.setenv("DAGSTER_STATE", str(home / state))
    check_history(load_study("demo"))


def test_the_history_from_before_is_refused_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_STATE", str(home / "dagster"))
    with pytest.raises(HistoryError, match="no one study"):
        check_history(load_study("demo"))


def test_a_command_enters_its_study_whatever_the_shell_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_STATE", str(home / "demo" / "dagster"))
    monkeypatch.setenv("IM_PROFILE", str(mine(tmp_path)))
    monkeypatch.setenv("DAGSTER_HOME", os.environ["DAGSTER_HOME"])  # restored afterwards
    study = enter_study()
    assert os.environ["DAGSTER_STATE"] == str(study.history) == str(home / "mine" / "dagster")
    check_history(study)


def test_an_earlier_history_is_told_and_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", os.environ["DAGSTER_HOME"])
    assert earlier_history(load_study("demo")) is None
    runs = home / "dagster" / "history" / "runs.db"
    runs.parent.mkdir(parents=True)
    runs.write_text("old", encoding="utf-8")
    enter_study()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"mv {home / 'dagster'} {home / 'demo' / 'dagster'}" in said
    assert runs.read_text(encoding="utf-8") == "old"
    enter_study()
    assert "in the place of" in capsys.readouterr().out


def test_the_workspace_of_the_ui_is_named_after_the_study(home: Path, tmp_path: Path) -> None:
    path = workspace_file(load_study("demo"), tmp_path / "code")
    assert path == home / "demo" / "workspace.yaml"
    (location,) = yaml.safe_load(path.read_text(encoding="utf-8"))["load_from"]
    assert location["grpc_server"] == {"location_name": "demo", "socket": str(tmp_path / "code")}
