"""Profiles that YAML takes silently, or never ends at: one clear error with the line."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from im_resources.study import ProfileError, load_study

NAMES = "abcdefghi"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(NAMES)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in pairwise(NAMES)
)


def message(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(f"extends: demo\n{text}", encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_study(str(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "name: a\nlabel: x\nname: b\n",
        "mixtures:\n  seeds: 8\n\n  seeds: 9\n",
        "name: a\n\n'name': b",
    ],
)
def test_a_key_given_twice_is_named_with_both_lines(tmp_path: Path, text: str) -> None:
    said = message(tmp_path, text)
    key, first = ("seeds", 3) if "seeds" in text else ("name", 2)
    assert f"the key '{key}' is given twice" in said
    assert f"line {first}," in said
    assert f"line {first + 2}," in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 10000 values, with aliases written out"),
        (MERGES, "more than 10000 values, with aliases written out"),
        ("data: &x [*x]\n", "an alias inside of what it stands for"),
        ("data: " + "[" * 50_000, "nested deeper than 30 levels"),
        ("data: " + "{a: " * 20_000, "nested deeper than 30 levels"),
        (f"mixtures: {{seeds: {'9' * 5000}}}\n", "a number of 5000 characters, at most 40"),
        (f"mixtures: {{seeds: 1{':59' * 5000}}}\n", "characters, at most 40"),
        ("label: !!timestamp 2024-13-45\n", "'2024-13-45' is no timestamp"),
        ("label: !!int ''\n", "'' is no int"),
        ("label: !!bool perhaps\n", "'perhaps' is no bool"),
        ("label: !!python/object/apply:os.getcwd []\n", "python/object/apply:os.getcwd"),
        ("#" * 200_001, "over 200 kB"),
        ("? [a]\n: b\n", "unhashable key"),
    ],
)
def test_what_no_profile_needs_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in message(tmp_path, text)


def test_what_looks_like_a_date_is_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: demo\nname: 2024-13-45\nlabel: 2024-01-31\n")
    study = load_study(str(path))
    assert (study.name, study.label) == ("2024-13-45", "2024-01-31")


def test_anchors_still_serve(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: demo\ndata:\n  candidates:\n    a: &source {path: a.jsonl, limit: 5}\n"
        "    b: {<<: *source, path: b.jsonl}\n"
    )
    sources = load_study(str(path)).data.candidates
    assert (sources["b"].path, sources["b"].limit) == ("b.jsonl", 5)


def test_a_long_wrong_value_is_shown_in_short(tmp_path: Path) -> None:
    assert len(message(tmp_path, f"mixtures: {{seeds: {'x' * 50_000}}}\n")) < 1500
    assert len(message(tmp_path, f"finetuning: [{'x, ' * 5000}]\n")) < 1500


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("pipe.yaml", "zero\0byte.yaml"):
        with pytest.raises(ProfileError, match=r"file:? "):
            load_study(str(tmp_path / name))
