"""Fingerprints: they change with what changes a result, and with nothing else."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, create_model

from im_resources.study import (
    PROJECT_ROOT,
    DataSource,
    FinetuningSettings,
    ModelSource,
    Settings,
    fingerprint,
    load_study,
)

# What adapters were keyed by when the settings were first fingerprinted. One that changes here
# trains everybody's adapters again: see Settings.ADDED.
GOLDEN = {"demo": "e330574c9a6f2e6e", "paper": "9d4ac4545f7bc8e8"}

DEMO = load_study("demo")
FIELDS = [
    (block, field)
    for block in type(DEMO).model_fields
    if isinstance(settings := getattr(DEMO, block), Settings)
    for field in type(settings).model_fields
]

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain_values, min_size=2, max_size=5))
def test_a_fingerprint_ignores_the_order_of_keys(settings: dict[str, Any]) -> None:
    assert fingerprint(settings) == fingerprint(dict(reversed(settings.items())))


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    code = "from im_resources.study import *; print(fingerprint(load_study('demo'), 'x', 1.5))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7", "IM_HOME": "/elsewhere"},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == fingerprint(load_study("demo"), "x", 1.5)


def test_a_default_written_out_does_not_change_the_fingerprint() -> None:
    assert fingerprint(ModelSource(hub="a")) == fingerprint(ModelSource(hub="a", revision=None))
    assert fingerprint(ModelSource(hub="a")) != fingerprint(ModelSource(hub="b"))


@pytest.mark.parametrize("profile", GOLDEN)
def test_what_was_trained_before_is_still_found(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_DATA_DIR", "/data")
    assert fingerprint(load_study(profile).finetuning) == GOLDEN[profile]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # values of any type
@given(st.sampled_from(FIELDS), plain_values)
def test_a_change_of_any_field_changes_the_fingerprint(place: tuple[str, str], value: Any) -> None:
    block, field = place
    settings = getattr(DEMO, block)
    assume(value != getattr(settings, field))
    assume(field not in settings.ADDED or value != settings.ADDED[field])
    assume(field not in settings.UNCOUNTED)
    others = settings.ONLY_WITH.get(field)
    assume(others is None or any(getattr(settings, other) is not None for other in others))
    changed = DEMO.model_copy(update={block: settings.model_copy(update={field: value})})
    assert fingerprint(changed) != fingerprint(DEMO)


@pytest.mark.parametrize("minutes", [None, 0.5, 10, 600])
def test_how_often_a_finetune_is_checkpointed_changes_no_fingerprint(minutes: float | None) -> None:
    changed = DEMO.finetuning.model_copy(update={"checkpoint_minutes": minutes})
    assert fingerprint(changed) == fingerprint(DEMO.finetuning) == GOLDEN["demo"]


class Longer(FinetuningSettings):
    """The finetuning settings of a later version, with a setting more."""

    ADDED: ClassVar[Mapping[str, Any]] = {"dropout": 0.0}

    dropout: float = Field(0.1, description="Added when adapters existed, trained without it")


class Longest(Longer):
    """A version later still."""

    ADDED: ClassVar[Mapping[str, Any]] = {"layers": ("all",)}

    layers: tuple[str, ...] = ("all",)


def test_an_added_field_keeps_the_fingerprint_at_its_value_and_only_there() -> None:
    before = fingerprint(FinetuningSettings())
    assert fingerprint(Longer(dropout=0.0)) == before
    assert fingerprint(Longer()) != before, "a default that computes something else"
    assert fingerprint(Longer(dropout=0.2)) not in (before, fingerprint(Longer()))
    assert fingerprint(Longer(dropout=0.0, epochs=4)) == fingerprint(FinetuningSettings(epochs=4))


def test_what_a_base_class_added_stays_added() -> None:
    assert fingerprint(Longest(dropout=0.0)) == fingerprint(FinetuningSettings())
    assert fingerprint(Longest(dropout=0.0, layers=("q",))) != fingerprint(FinetuningSettings())


def test_an_added_field_is_found_in_nested_blocks() -> None:
    def key(settings: FinetuningSettings) -> str:
        kind: Any = type(settings)
        fields: dict[str, Any] = {"one": kind, "many": dict[str, kind], "row": tuple[kind, ...]}
        block = create_model("Block", __base__=Settings, **fields)
        values = {"one": settings, "many": {"a": settings}, "row": (settings,)}
        return fingerprint(block.model_validate(values))

    assert key(Longer(dropout=0.0)) == key(FinetuningSettings())
    assert key(Longer(dropout=0.3)) != key(FinetuningSettings())
    assert fingerprint({"a": Longer(dropout=0.0)}) == fingerprint({"a": FinetuningSettings()})


def test_how_rows_are_taken_counts_only_where_there_is_a_limit() -> None:
    whole = DataSource(path="a.jsonl")
    # As it was when there was no `take`, and all rows or the first were read.
    fields = set(DataSource.ADDED)
    assert fingerprint(whole) == fingerprint(whole.model_dump(mode="json", exclude=fields))
    assert fingerprint(DataSource(path="a.jsonl", take="first", sample_seed=3)) == fingerprint(
        whole
    )
    first = DataSource(path="a.jsonl", limit=9, take="first")
    assert fingerprint(first) == fingerprint(first.model_dump(mode="json", exclude=fields))
    keys = [
        fingerprint(source)
        for source in (
            first,
            DataSource(path="a.jsonl", limit=9),
            DataSource(path="a.jsonl", limit=9, sample_seed=1),
            DataSource(path="a.jsonl", limit=8),
        )
    ]
    assert len(set(keys)) == 4
    assert fingerprint({"a": {"b": whole}}) == fingerprint({"a": {"b": first.model_copy(
        update={"limit": None})}})  # fmt: skip


def test_a_setting_that_goes_with_none_that_there_is_is_an_error() -> None:
    with pytest.raises(TypeError, match="limti"):
        type("Wrong", (DataSource,), {"ONLY_WITH": {"take": ("limti",)}})


def test_a_misspelt_added_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="dropuot"):
        type("Wrong", (FinetuningSettings,), {"ADDED": {"dropuot": 0.0}})
    with pytest.raises(TypeError, match="checkpoints"):
        type("Wrong", (FinetuningSettings,), {"UNCOUNTED": frozenset({"checkpoints"})})
