"""Any order of arrivals, partial uploads, duplicates, ticks and deaths: every content that was
completely uploaded is admitted once, or rejected once, and nothing else ever is."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from im_assets.landing import admitting
from im_assets.landing.admitting import land
from im_assets.landing.assets import targets
from im_assets.landing.ledger import entries, store_of
from im_assets.landing.local import LocalFolder
from im_assets.landing.remote import RemoteFolder
from im_assets.landing.store import Store
from im_assets.landing.watching import settled
from im_resources.warehouse import Warehouse
from tests.landing.places import KINDS, landing_study, rows

GOOD = [rows("a"), rows("a", "b"), rows("c", "d", "")]
BAD = [b"", b"not rows", rows("a", "", "")]
CONTENTS = [*GOOD, *BAD]
TARGETS = ["terse", "howto"]
# Every step that leaves something behind.
STEPS: list[tuple[Any, str]] = [
    (Store, "publish"),
    (admitting, "record"),
    *((kind, step) for kind in (LocalFolder, RemoteFolder)
      for step in ("_delete", "_write_reason", "_move_to_rejected")),
]  # fmt: skip


class Died(BaseException):
    """The process is gone."""


@contextmanager
def dying(after: int | None) -> Iterator[None]:
    """Die before or after the so many-th step; None: live."""
    left = [after]

    def burning(step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            burn()
            result = step(*args)
            burn()
            return result

        return wrapped

    def burn() -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Died

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, burning(getattr(owner, name)))
        yield


class AnyOrder(RuleBasedStateMachine):
    """Strangers upload, the sensor ticks, runs die."""

    kind = "local"

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("IM_HOME", self.temporary.name)
        self.place = KINDS[self.kind](Path(self.temporary.name))
        self.study = landing_study(self.place)
        self.warehouse = Warehouse(self.study.warehouse)
        self.growing: dict[str, bytes] = {}
        self.complete: set[tuple[str, bytes]] = set()
        self.seen: list[str] = []
        self.told = self.names = 0

    @rule(source=st.sampled_from(TARGETS), content=st.sampled_from(CONTENTS), marked=st.booleans())
    def upload(self, source: str, content: bytes, marked: bool) -> None:
        """A whole file at once."""
        self.names += 1
        name = f"{source}/{self.names}.jsonl"
        self.place.put(name, content)
        if marked:
            self.place.put(f"{name}.done", b"")
        self.complete.add((source, content))

    @rule(source=st.sampled_from(TARGETS))
    def begin(self, source: str) -> None:
        """An upload under its final name; it grows until it is ended."""
        self.names += 1
        self.growing[f"{source}/{self.names}.jsonl"] = b""
        self.grow()

    @rule(content=st.sampled_from(CONTENTS))
    def end(self, content: bytes) -> None:
        if self.growing:
            name, _ = self.growing.popitem()
            self.place.put(name, content)
            self.complete.add((name.partition("/")[0], content))

    @rule(deaths=st.none() | st.integers(0, 12))
    def tick(self, deaths: int | None) -> None:
        """The sensor looks, and the run that it starts may die."""
        self.grow()
        arrivals = self.place.folder.look(targets(self.study)).arrivals
        ready = settled(arrivals, self.seen)
        self.seen = [arrival.signature for arrival in arrivals]
        if not ready:
            return
        try:
            with dying(deaths):
                landing = land(ready, self.place.folder, self.study, self.warehouse, self.told)
        except Died:
            return
        self.told = landing.number if landing.entries else self.told

    def grow(self) -> None:
        for name in self.growing:
            self.growing[name] += rows(f"part {len(self.growing[name])}")
            self.place.put(name, self.growing[name])

    def teardown(self) -> None:
        while self.growing:
            self.end(GOOD[0])
        self.tick(None)
        self.tick(None)
        ledger = entries(self.warehouse)
        contents = {hashlib.sha256(content).hexdigest(): content for content in CONTENTS}
        # A content that is no whole upload is not among them: a KeyError.
        landed = [(entry.target, contents[entry.sha256]) for entry in ledger]
        assert len(landed) == len(self.complete)
        assert set(landed) == self.complete
        assert len({entry.number for entry in ledger}) == len(ledger)
        stored, rejected = set(), set()
        for entry, (target, content) in zip(ledger, landed, strict=True):
            assert (entry.status == "admitted") == (content in GOOD)
            if entry.file:
                assert (store_of(self.study) / entry.file).read_bytes() == content
                stored.add(entry.file)
            else:
                rejected.add((target, content))
        assert {p.name for p in store_of(self.study).glob("*.jsonl")} == stored
        left = self.place.files()
        assert all(name.startswith("rejected/") for name in left)
        data = {name: c for name, c in left.items() if not name.endswith(".reason.txt")}
        assert {(name.split("/")[1], content) for name, content in data.items()} == rejected
        assert all(f"{name}.reason.txt" in left for name in data)
        self.patch.undo()
        self.temporary.cleanup()


class AnyOrderRemote(AnyOrder):
    kind = "remote"


LIMITS = settings(
    max_examples=12,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
AnyOrder.TestCase.settings = LIMITS
AnyOrderRemote.TestCase.settings = LIMITS
TestLocal = AnyOrder.TestCase
TestRemote = AnyOrderRemote.TestCase
