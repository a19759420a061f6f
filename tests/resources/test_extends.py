"""A profile that starts from another one."""

from pathlib import Path

import pytest

from im_resources.study import ProfileError, load_study


def profile(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_only_what_is_given_differs(tmp_path: Path) -> None:
    demo = load_study("demo")
    mine = load_study(profile(tmp_path, "extends: demo\nname: mine\nmixtures: {seeds: 9}\n"))
    assert mine.name == "mine"
    assert mine.mixtures.seeds == 9
    assert mine.mixtures.size == demo.mixtures.size
    assert mine.data == demo.data


def test_a_list_of_sources_is_replaced_not_mixed(tmp_path: Path) -> None:
    text = "extends: demo\ndata:\n  candidates:\n    own: {path: own.jsonl}\n"
    mine = load_study(profile(tmp_path, text))
    assert list(mine.data.candidates) == ["own"]
    assert mine.data.unseen == load_study("demo").data.unseen


def test_extending_a_file_that_extends_another(tmp_path: Path) -> None:
    base = profile(tmp_path, "extends: demo\nlabel: base\n", "base")
    mine = load_study(profile(tmp_path, f"extends: {base}\nname: mine\n"))
    assert (mine.name, mine.label) == ("mine", "base")


def test_an_unknown_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"unknown profile 'dmo'; did you mean 'demo'"):
        load_study(profile(tmp_path, "extends: dmo\n"))


def test_a_circle_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    mine = profile(tmp_path, f"extends: {other}\n")
    other.write_text(f"extends: {mine}\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="circle"):
        load_study(mine)


def test_a_fault_in_the_extending_file_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"mixtures\.seeds.*'many'"):
        load_study(profile(tmp_path, "extends: demo\nmixtures: {seeds: many}\n"))
