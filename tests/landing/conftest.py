"""A landing folder of each kind."""

from pathlib import Path

import pytest

from tests.landing.places import KINDS, Place


@pytest.fixture(params=sorted(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return KINDS[request.param](tmp_path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
