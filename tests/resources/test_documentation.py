"""The page of all settings: complete, readable, and what is in the repository."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from pydantic import BaseModel

import im_resources
from im_resources.study import Settings, Study, documentation, load_study
from im_resources.study.documentation import PAGE, readable, settings_page

TEXT = settings_page()


def described() -> Iterator[type[BaseModel]]:
    """Every settings block, and every resource that Dagster's launchpad shows."""
    for module in pkgutil.walk_packages(im_resources.__path__, "im_resources."):
        if "language_model" not in module.name:  # which would import torch, and holds none
            importlib.import_module(module.name)
    waiting: list[type[BaseModel]] = [Settings, dg.ConfigurableResource]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("im_resources.") and kind.__name__.isidentifier():
                yield kind


@pytest.mark.parametrize("kind", sorted(set(described()), key=str))
def test_every_field_is_described(kind: type[BaseModel]) -> None:
    assert kind.__doc__
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_the_page_in_the_repository_is_what_the_settings_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["documentation", "--check"])
    assert documentation.main() == 0, "write it with: make settings"


def test_a_page_that_differs_is_told_and_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "settings.md"
    page.parent.mkdir()
    page.write_text("old", encoding="utf-8")
    monkeypatch.setattr(documentation, "PAGE", page)
    monkeypatch.setattr(documentation, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["documentation", "--check"])
    assert documentation.main() == 1
    assert "make settings" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "old"
    monkeypatch.setattr("sys.argv", ["documentation"])
    assert documentation.main() == 0
    assert page.read_text(encoding="utf-8") == TEXT


def test_each_block_has_its_section_in_the_order_of_the_profile() -> None:
    titles = re.findall(r"^## `(\w+)`$", TEXT, flags=re.MULTILINE)
    values = load_study("demo")
    assert titles == [
        name
        for name, field in Study.model_fields.items()
        if isinstance(getattr(values, name), Settings) or "| None" in str(field.annotation)
    ]


def test_every_field_of_every_block_has_a_row() -> None:
    for kind in Settings.__subclasses__():
        if kind.__module__ == Study.__module__:
            for name in kind.model_fields:
                assert f"| `{name}` |" in TEXT


def test_a_row_says_type_default_and_meaning() -> None:
    assert "| `learning_rate` | number > 0 and < 1 | `0.0003` | Peak learning rate" in TEXT
    assert "| `schedule` | `constant`, `linear`, `cosine` | `linear` | How the" in TEXT
    assert "| `name` | name | **required** |" in TEXT
    assert "| `sizes` | list of whole numbers > 0 | `[1000]` |" in TEXT
    assert "### `data.candidates.<name>`, `data.unseen" in TEXT
    assert readable(dict[str, int | None]) == "text: whole number, …"


def test_the_example_of_the_page_is_a_profile(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert example
    path = tmp_path / "mine.yaml"
    path.write_text(example[1], encoding="utf-8")
    study = load_study(str(path))
    assert yaml.safe_load(example[1])["extends"] == "demo"
    assert set(study.data.candidates) == {"support", "tickets"}
    assert study.finetuning.epochs == load_study("demo").finetuning.epochs


def test_the_page_is_linked_from_the_readme() -> None:
    assert "(docs/settings.md)" in (PAGE.parent.parent / "README.md").read_text(encoding="utf-8")
