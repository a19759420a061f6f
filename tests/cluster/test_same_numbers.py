"""A study on a cluster of a head and three workers gives what it gives on one machine."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from im_resources.study import load_study
from im_resources.warehouse import Warehouse
from tests.cluster.same_numbers import Beyond, apart, beyond, require_same, run
from tests.language_model.models import write_model
from tests.servers import missing
from tests.study import write_profile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    return write_profile(folder, write_model(folder / "model"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beyond]:
    with beyond(tmp_path_factory.mktemp("beyond")) as found:
        yield found


@pytest.fixture(scope="module")
def here(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    home = tmp_path_factory.mktemp("here")
    code, said = run(home, str(profile))
    assert code == 0, said
    return Warehouse(home / load_study(str(profile)).name / "warehouse.duckdb")


def test_the_same_numbers(profile: Path, cluster: Beyond, here: Warehouse) -> None:
    there = cluster.place("im")
    code, said = there.run(str(profile))
    assert code == 0, said
    require_same(there.apart(here, load_study(str(profile))))
    assert not (there.home / "tiny" / "warehouse.duckdb").exists()


def test_a_difference_would_be_seen(here: Warehouse, tmp_path: Path) -> None:
    other = Warehouse(tmp_path / "other.duckdb")
    for table in here.tables():
        if table != "warehouse_version":
            frame = here.read_table(table)
            if table == "eval_losses":
                frame["loss"] += [0.0] * 3 + [1e-5] + [0.0] * (len(frame) - 4)
            if table == "dolly_selection":
                frame.loc[0, "example_id"] = "another"
            other.replace_table(table, frame)
    found = apart(here, other)
    differing = found[found["apart"] > 0].set_index(["table", "column"])["apart"]
    assert differing["eval_losses", "loss"] == pytest.approx(1e-5, rel=1e-3)
    assert pd.notna(differing["dolly_selection", "example_id"])
    assert set(differing.index.get_level_values(0)) == {"eval_losses", "dolly_selection"}
    with pytest.raises(AssertionError, match=r"dolly_selection[^\n]*\n[^\n]*eval_losses"):
        require_same(found)
