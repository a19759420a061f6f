"""A small study with rounds, through its jobs: tables, points, stops, plan, staleness."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.study import Platform, copied, write_profile

MINING: dict[str, Any] = {"rounds": 2, "seeds": 2}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """The home and the profile of a study that has run."""
    home = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(
            home,
            tiny_folder,
            mining=MINING,
            rule={"points": ["mixtures", "rounds"], "bootstrap": 10, "permutations": 19,
                  "choose": "stepwise", "p_enter": 0.9, "p_remove": 0.95, "max_indicators": 2},
        )  # fmt: skip
        Platform(profile, instance).run_all()
        yield home, profile


@pytest.fixture
def platform(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """The finished study, to do something to."""
    own = copied(finished, tmp_path / "home")
    monkeypatch.setenv("IM_HOME", str(own.parent))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(own, instance)


def test_end_to_end(platform: Platform) -> None:
    print([job.name for job in platform.definitions.jobs or ()])
    print(platform.table("mining_rounds").T.to_string())
    print(platform.table("indicator_table").to_string())
