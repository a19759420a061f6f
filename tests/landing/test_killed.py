"""Real processes, killed at every boundary of the move: nothing is lost, nothing admitted twice."""

import signal
from pathlib import Path
from typing import Any

import pytest

from im_assets.landing.ledger import LandedFile, entries, store_of
from im_resources.study import Study
from im_resources.warehouse import Warehouse
from tests.landing.dying import land_all
from tests.landing.places import Place, landing_study, local, rows
from tests.processes import Forked

KINDS = {"local": "local:LocalFolder", "remote": "remote:RemoteFolder"}
# The files of FILES in order: one that is rejected, one that is admitted, one that is known.
BOUNDARIES = [
    ("im_assets.landing.folder:Folder.fetch", "within", 1),
    ("im_assets.landing.folder:Folder.fetch", "within", 2),
    ("im_assets.landing.folder:Folder.fetch", "after", 2),
    ("im_assets.landing.store:Store.publish", "before", 1),
    ("im_assets.landing.store:Store.publish", "after", 1),
    ("im_resources.warehouse:insert", "before", 1),
    ("im_resources.warehouse:insert", "after", 2),
    ("im_assets.landing.admitting:record", "after", 1),
    ("im_assets.landing.admitting:record", "after", 2),
    ("KIND:_write_reason", "after", 1),
    ("KIND:_move_to_rejected", "before", 1),
    ("KIND:_move_to_rejected", "after", 1),
    ("KIND:_delete", "before", 1),  # of the marker
    ("KIND:_delete", "after", 1),
    ("KIND:_delete", "after", 2),
    ("KIND:_delete", "before", 3),  # of the file that is known
]
FILES = {
    "howto/bad.jsonl": b"not rows",
    "terse/good.jsonl": rows("a", "b", ""),
    "terse/good.jsonl.done": b"",
    "terse/same.jsonl": rows("a", "b", ""),
}


def state(place: Place, study: Study) -> dict[str, Any]:
    """All that a landing leaves behind."""
    ledger: list[LandedFile] = entries(Warehouse(study.warehouse))
    store = store_of(study)
    kept = {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    return {"ledger": ledger, "store": kept, "folder": place.files()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is left when nothing dies."""
    home = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IM_HOME", str(home))
        place = local(home / "landing")
        for name, content in FILES.items():
            place.put(name, content)
        land_all("local", place, study := landing_study(place))
        return state(place, study)


@pytest.mark.parametrize(
    ("kind", "where", "when", "nth"),
    [("local", *boundary) for boundary in BOUNDARIES]
    + [("remote", *boundary) for boundary in BOUNDARIES if boundary[0].startswith("KIND:")],
)
def test_a_rerun_after_a_kill_ends_in_the_same_state(
    tmp_path: Path, undisturbed: dict[str, Any], kind: str, where: str, when: str, nth: int
) -> None:
    place, study = killed(tmp_path, kind, where, when, nth)
    left = state(place, study)
    # Nothing is lost: each content is in the landing folder or admitted.
    there = {*left["folder"].values(), *left["store"].values()}
    assert {FILES["howto/bad.jsonl"], FILES["terse/good.jsonl"]} <= there
    land_all(kind, place, study)
    assert state(place, study) == undisturbed


def test_a_kill_between_copy_and_removal_in_a_store_far_away(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    where = "fsspec.implementations.local:LocalFileSystem.cp_file"
    place, study = killed(tmp_path, "remote", where, "after", 1)
    assert list(place.files().values()).count(b"not rows") == 2
    land_all("remote", place, study)
    assert state(place, study) == undisturbed


def killed(tmp_path: Path, kind: str, where: str, when: str, nth: int) -> tuple[Place, Study]:
    """A landing folder whose landing was killed there."""
    place = local(tmp_path / "landing")
    for name, content in FILES.items():
        place.put(name, content)
    where = where.replace("KIND:", f"im_assets.landing.{KINDS[kind]}.")
    log = tmp_path / "log"
    child = Forked("tests.landing.dying", kind, place.url, where, when, str(nth), log=log)
    assert child.wait() == -signal.SIGKILL, log.read_text(encoding="utf-8")
    return place, landing_study(place)
