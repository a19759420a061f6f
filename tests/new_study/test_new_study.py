"""``new_study`` on a user's files: what it writes loads, and says what it assumed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from im_assets.candidates.reading import read_source
from im_assets.new_study.__main__ import main
from im_assets.new_study.sources import sources
from im_resources.study import PROFILES, PROJECT_ROOT, Study, load_study
from tests.new_study.own_files import write_all, write_lines


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A user's files, in a folder of their own; profiles are written beside it."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "var"))
    return write_all(tmp_path / "my data")


def propose(folder: Path, *arguments: object) -> tuple[Study, str]:
    """The study that is proposed, and its profile's text."""
    assert main(["mine", "--into", str(folder), *map(str, arguments)]) == 0
    path = folder / "mine.yaml"
    return load_study(str(path)), path.read_text(encoding="utf-8")


def test_a_mix_of_files_becomes_a_study_that_reads_them(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("german", "tabs", "chinese", "chats")
    study, text = propose(
        tmp_path, "--candidates", *(files[name] for name in names),
        "--pool", files["code"], "--evaluation", files["evaluation"],
    )  # fmt: skip
    assert study.name == "mine"
    assert list(study.data.candidates) == ["tickets", "math", "source", "chats"]
    assert list(study.data.unseen) == ["code"]
    assert study.mixtures == load_study("demo").mixtures
    for name, source in study.data.candidates.items():
        rows, rejected = read_source(name, source)
        assert (len(rows), len(rejected)) == (30, 0)
    for said in (
        "Fields are separated by semicolons",
        "instruction = 'Frage', output = 'Antwort'",
        "Not read: 'Note'",
        "the rows' own ids are in 'Nr'",
        "Into quarantine: the output is empty (2)",
        "By language: zh 30",
    ):
        assert said in " ".join(text.replace("#", "").split())
    assert max(map(len, text.splitlines())) <= 200  # paths are as long as they are
    told = capsys.readouterr().out
    assert told.startswith(f"wrote {tmp_path / 'mine.yaml'}\n")
    assert "LOOK HERE: the data is in " in told
    assert "of which the evaluation set has nothing" in told
    assert f"IM_PROFILE={tmp_path / 'mine.yaml'} IM_HOME={tmp_path / 'var'} make run" in told


@pytest.mark.parametrize("kind", ["german", "tabs", "chinese", "chats", "code"])
def test_each_kind_of_file_alone(tmp_path: Path, files: dict[str, Path], kind: str) -> None:
    study, text = propose(tmp_path, "--candidates", files[kind])
    [(name, source)] = study.data.candidates.items()
    assert study.data.unseen[f"{name}_pool"] == source  # selected from, since nothing else is
    assert "Assumed, since no POOL was given" in text
    assert "ASSUMED, since no EVAL was given" in text
    assert study.data.evaluation == load_study("demo").data.evaluation
    assert len(read_source(name, source)[0]) == 30


def test_a_pattern_a_folder_and_a_name_make_one_source(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    for part in ("one", "two", "three"):
        rows = [{"instruction": f"{part} {i}", "output": "yes"} for i in range(4)]
        write_lines(tmp_path / "parts" / f"{part}.jsonl", rows)
    parts = tmp_path / "parts"
    study, text = propose(
        tmp_path, "--candidates", f"{parts}/t*.jsonl", parts, f"own={parts}/one.jsonl",
        f"own={parts}/two.jsonl",
    )  # fmt: skip
    found = {name: read_source(name, s)[0]["file"] for name, s in study.data.candidates.items()}
    assert {name: sorted(set(rows)) for name, rows in found.items()} == {
        "parts": ["three.jsonl", "two.jsonl"],
        "parts_2": ["one.jsonl", "three.jsonl", "two.jsonl"],
        "own": ["one.jsonl", "two.jsonl"],
    }
    assert "3 files. 12 rows looked at (all there are)" in " ".join(text.replace("#", "").split())


def test_a_source_is_called_after_what_its_pattern_says(tmp_path: Path) -> None:
    for part in (1, 2):
        rows = [{"task": "Add", "solution": "yes", "task_id": f"{part}-1"}]
        write_lines(tmp_path / f"new-pool-{part}.jsonl", rows)
    [source] = sources([f"{tmp_path}/new-pool-*.jsonl"], {})
    assert (source.name, source.files) == ("new_pool", 2)
    assert source.looks[0].settings["fields"]["id"] == "task_id"


def test_without_candidates_a_ready_rule_is_applied(tmp_path: Path, files: dict[str, Path]) -> None:
    study, _ = propose(tmp_path, "--pool", files["code"])
    assert study.fits_nothing
    assert (study.rule.source, study.data.evaluation) == ("published_v1", None)
    assert list(study.data.unseen) == ["code"]


def test_other_models_and_sizes(tmp_path: Path, files: dict[str, Path]) -> None:
    study, _ = propose(tmp_path, "--candidates", files["tabs"], "--extends", "real_small")
    real = load_study("real_small") if "IM_DATA_DIR" in os.environ else None
    assert study.mixtures.size == (real.mixtures.size if real else 64)
    assert study.data.evaluation is not None
    assert study.data.evaluation.path == "sample_data/evaluation.jsonl"


def test_a_profile_is_never_overwritten_unasked(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    propose(tmp_path, "--candidates", files["tabs"])
    path = tmp_path / "mine.yaml"
    path.write_text("mine: as I left it\n")
    again = ["mine", "--into", str(tmp_path), "--candidates", str(files["code"])]
    assert main(again) == 1
    assert f"{path} is there already" in capsys.readouterr().err
    assert path.read_text() == "mine: as I left it\n"
    assert main([*again, "--replace"]) == 0
    assert "code.csv.gz" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine"], "no files were given"),
        (["a/b", "--candidates", "TABS"], "letters, digits, - and _"),
        (["mine", "--candidates", "nowhere.jsonl"], "there is no file or folder"),
        (["mine", "--candidates", "nowhere*.jsonl"], "no file matches the pattern"),
        (["mine", "--candidates", "TABS", "--fields", "prompt"], "expected FIELD=COLUMN"),
        (["mine", "--candidates", "TABS", "--fields", "output=a"], "column of the instruction"),
        (["mine", "--candidates", "x=TABS", "x=CHATS"], "files of one source have one shape"),
        (["mine", "--candidates", "TABS", "--extends", "demmo"], "did you mean 'demo'"),
        (["mine", "--candidates", "EMPTY"], "a folder without data files"),
    ],
)
def test_what_cannot_be_proposed_is_said_and_nothing_written(
    tmp_path: Path,
    files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    paths = {"TABS": files["tabs"], "CHATS": files["chats"], "EMPTY": tmp_path / "empty"}
    for name, path in paths.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    assert main([*arguments, "--into", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.yaml"))


def test_make_new_study_and_the_definitions_of_it(tmp_path: Path, files: dict[str, Path]) -> None:
    """As a user does it: ``make``, then a process that loads the study by its name."""
    name = f"way-in-{os.getpid()}"
    python = Path(sys.executable)
    own = {"IM_HOME": str(tmp_path / "var"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=PROJECT_ROOT, env=own | variables, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    path = PROFILES / f"{name}.yaml"
    try:
        made = run(
            "make", "-s", "-o", "install", "new-study", f"BIN={python.parent}", f"NAME={name}",
            f"CANDIDATES='{files['german']}' 'talk={files['chats'].parent}/*.parquet'",
            f"POOL='{files['code']}'", f"EVAL='{files['evaluation']}'",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith(f"wrote {path}\n")
        listed = "from im_assets.definitions import STUDY, defs; print(STUDY.name, STUDY.pools); "
        listed += "print(*sorted(a.key.to_user_string() for a in defs.assets))"
        for written in (name, f"{name}.yaml", str(path)):
            loaded = run(str(python), "-c", listed, IM_PROFILE=written)
            assert loaded.returncode == 0, loaded.stderr
            assert f"{name} " in loaded.stdout
            assert "code_selection" in loaded.stdout
        some = run(str(python), "-m", "im_assets.run", "data", IM_PROFILE=name)
        assert some.returncode == 0, some.stderr
        printed = some.stdout.partition("done after")[2].splitlines()[1:]
        home = tmp_path / "var"  # of paths only those that are there: this job makes none of them
        assert printed == [f"look at it with: IM_PROFILE={name} IM_HOME={home} make dev"]
        named = run(
            str(python.parent / "dagster"), "asset", "list", "-m", "im_assets.definitions",
            IM_PROFILE=name,
        )  # fmt: skip
        assert named.returncode == 0, named.stderr
        assert "code_selection" in named.stdout.splitlines()
    finally:
        path.unlink(missing_ok=True)


def test_make_new_study_without_a_name_says_what_to_give(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-s", "-o", "install", "new-study", f"BIN={Path(sys.executable).parent}"],
        cwd=PROJECT_ROOT,
        env={"PATH": os.environ["PATH"], "NAME": "a-machine"},  # as some systems have it
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "make new-study NAME=mine" in done.stderr
