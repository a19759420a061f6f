"""Modules of the user's own: found beside the profile or installed, or an error that says where."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from im_assets.scoring.registry import BACKENDS
from im_resources.plugins import load_plugins
from im_resources.study import PROJECT_ROOT, ProfileError, load_study
from tests.registries import isolate

BACKEND = """
from im_assets.scoring.registry import indicator


@indicator("{name}", version=1)
def score(batch):
    return batch.examples["output"].str.len()
"""


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports and registers is gone after it."""
    isolate(BACKENDS, monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def profile(folder: Path, plugins: str, extends: str = "demo") -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "mine.yaml"
    path.write_text(f"extends: {extends}\nname: mine\nplugins: {plugins}\n")
    return str(path)


def load(path: str) -> None:
    load_plugins(load_study(path))


def test_a_file_beside_the_profile(tmp_path: Path) -> None:
    (tmp_path / "beside_file.py").write_text(BACKEND.format(name="of_file"))
    load(profile(tmp_path, "[beside_file]"))
    assert BACKENDS.get("of_file", "").version == 1


def test_a_package_beside_the_profile_that_is_extended(tmp_path: Path) -> None:
    package = tmp_path / "base" / "beside_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "indicators.py").write_text(BACKEND.format(name="of_package"))
    base = profile(tmp_path / "base", "[beside_package.indicators]")
    (tmp_path / "mine.yaml").write_text(f"extends: {base}\nname: other\n")
    load(str(tmp_path / "mine.yaml"))
    load(str(tmp_path / "mine.yaml"))  # once more does nothing
    assert BACKENDS.get("of_package", "").version == 1


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What pip leaves of a package with an entry point, in a folder on the path."""
    site = tmp_path / "site"
    info = site / "im_shop-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: im-shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[instruction_mining]\nshop = im_shop.indicators\n")
    (site / "im_shop").mkdir()
    (site / "im_shop" / "__init__.py").touch()
    (site / "im_shop" / "indicators.py").write_text(BACKEND.format(name="of_shop"))
    sys.path.append(str(site))
    return site


def test_an_entry_point_of_an_installed_package(installed: Path) -> None:
    load_plugins(load_study("demo"))
    assert BACKENDS.get("of_shop", "").version == 1


def test_an_entry_point_that_fails_names_its_package(installed: Path) -> None:
    (installed / "im_shop" / "indicators.py").write_text("import no_such_thing")
    message = r"'shop' of im-shop .*im_shop\.indicators.*No module named 'no_such_thing'"
    with pytest.raises(ProfileError, match=message):
        load_plugins(load_study("demo"))


def test_a_module_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no module 'my_shop\.metrics'.*'my_shop'") as caught:
        load(profile(tmp_path, "[my_shop.metrics]"))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import no_such_thing", "No module named 'no_such_thing'"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (BACKEND.format(name="mtld"), "two entries are called 'mtld'"),
    ],
)
def test_a_module_that_fails_says_how(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "beside_broken.py").write_text(content)
    with pytest.raises(ProfileError, match="'beside_broken' cannot be imported") as caught:
        load(profile(tmp_path, "[beside_broken]"))
    assert message in str(caught.value)


def test_a_plugin_that_takes_a_name_before_the_built_in_ones_are_known(tmp_path: Path) -> None:
    """In a process of its own, whose registries are still empty."""
    (tmp_path / "beside_twin.py").write_text(BACKEND.format(name="mtld"))
    path = profile(tmp_path, "[beside_twin]")
    code = (
        "from im_resources.plugins import load_plugins; from im_resources.study import load_study; "
        f"load_plugins(load_study({path!r})); "
        "from im_assets.scoring.registry import BACKENDS; BACKENDS.get('mtld', 'x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert "two entries are called 'mtld'" in done.stderr


def test_a_module_hidden_by_an_installed_one(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("")
    with pytest.raises(ProfileError, match=r"'yaml' is .*which hides .*another name") as caught:
        load(profile(tmp_path, "[yaml]"))
    assert str(tmp_path / "yaml.py") in str(caught.value)


@pytest.mark.parametrize("name", ["[my-module]", "['a b']", "[a..b]", "[.a]", "['']", "[a/b.py]"])
def test_what_cannot_name_a_module(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProfileError, match=re.escape("plugins.0: String should match")):
        load(profile(tmp_path, name))
