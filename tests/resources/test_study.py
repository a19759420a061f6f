"""A profile file becomes one validated study, and a wrong one says what would be right."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from im_resources.study import (
    PROFILES,
    PROJECT_ROOT,
    DataSource,
    ProfileError,
    Settings,
    Study,
    load_study,
    resolve_path,
    state_home,
)
from im_resources.study.resource import StudyResource

MINIMAL: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "candidates": {"careful": {"path": "a.jsonl"}},
        "unseen": {"path": "b.jsonl"},
        "evaluation": {"path": "c.jsonl"},
    },
    "models": {"base": {"hub": "some/base"}, "embedding": {"hub": "some/embedding"}},
    "scoring": {"indicators": {"len_in": "instruction_length"}},
}

Load = Callable[..., Study]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the minimal profile from a file, with `changes` set at dotted places."""

    def load_changed(**changes: Any) -> Study:
        content = copy.deepcopy(MINIMAL)
        for place, value in changes.items():
            *blocks, key = place.split(".")
            target = content
            for block in blocks:
                target = target.setdefault(block, {})
            target[key] = value
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_study(str(path))

    return load_changed


# -- which profile -------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", sorted(p.stem for p in PROFILES.glob("*.yaml")))
def test_every_shipped_profile_loads(profile: str) -> None:
    assert load_study(profile).name


def test_a_profile_is_chosen_by_argument_then_environment_then_demo(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    assert load_study().name == "demo"
    monkeypatch.setenv("IM_PROFILE", str(tmp_path / "study.yaml"))
    assert load_study().name == "tiny"
    assert load_study("demo").name == "demo"


def test_an_unknown_profile_names_the_similar_one_and_all_others() -> None:
    with pytest.raises(
        ProfileError, match=r"'demmo'; did you mean 'demo'\?; known profiles: .*demo"
    ):
        load_study("demmo")


def test_a_profile_path_that_does_not_exist_is_named() -> None:
    with pytest.raises(ProfileError, match=r"nowhere/x\.yaml"):
        load_study("nowhere/x.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "name: [unclosed", "\xff"])
def test_a_file_that_is_not_a_mapping_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ProfileError, match=r"broken\.yaml"):
        load_study(str(path))


# -- what is wrong with it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "meant"),
    [
        ("mixturs", "mixtures"),
        ("finetuning.learning_rat", "learning_rate"),
        ("data.unsen", "unseen"),
        ("data.evaluation.pth", "path"),
        ("data.candidates.careful.pth", "path"),
        ("models.base.packge", "package"),
        ("models.reward.revison", "revision"),
        ("scoring.indicatrs", "indicators"),
        ("scoring.indicators.x.optionz", "options"),
    ],
)
def test_a_misspelt_key_is_named_with_the_right_one(load: Load, place: str, meant: str) -> None:
    with pytest.raises(ProfileError) as error:
        load(**{place: 1})
    assert f"  {place}: unknown setting; did you mean {meant!r}?" in str(error.value).splitlines()


def test_a_key_like_no_other_gets_the_list_of_keys(load: Load) -> None:
    known = "known: candidate_seeds, kind, seeds, shares, size, strength, tilt"
    with pytest.raises(ProfileError, match=rf"mixtures\.xyzzy: unknown setting; {known}$"):
        load(**{"mixtures.xyzzy": 1})


def _blocks(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """The blocks of settings that a profile may leave out, with their names."""
    kinds = ((name, field.annotation) for name, field in model.model_fields.items())
    return [(n, k) for n, k in kinds if isinstance(k, type) and issubclass(k, Settings)]


@given(data=st.data())
def test_dropping_a_letter_of_any_key_is_answered_with_that_key(data: st.DataObject) -> None:
    block, kind = data.draw(st.sampled_from(_blocks(Study)))
    key = data.draw(st.sampled_from(sorted(kind.model_fields)))
    gone = data.draw(st.integers(0, len(key) - 1))
    misspelt = key[:gone] + key[gone + 1 :]
    assume(len(misspelt) > 2 and misspelt not in kind.model_fields)
    with pytest.raises(ProfileError) as error:
        _load_text(yaml.safe_dump(MINIMAL | {block: MINIMAL.get(block, {}) | {misspelt: 1}}))
    assert f"{block}.{misspelt}: unknown setting; did you mean {key!r}?" in str(error.value)


def _load_text(text: str) -> Study:
    """As the fixture `load`, for hypothesis, whose examples share one tmp_path."""
    path = state_home() / "hypothesis.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_study(str(path))


@pytest.mark.parametrize(
    "field", sorted(n for n, f in Study.model_fields.items() if f.is_required())
)
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in MINIMAL.items() if k != field}))
    with pytest.raises(ProfileError, match=rf"  {field}: missing"):
        load_study(str(path))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("mixtures.seeds", "many", "valid integer"),
        ("mixtures.seeds", 3, "greater than or equal to 4"),
        ("finetuning.learning_rate", 1.5, "less than 1"),
        ("models.precision", "fp8", "'fp32', 'bf16'"),
        ("data.candidates", ["a.jsonl"], "valid dictionary"),
        ("name", "../elsewhere", "pattern"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_accepted(
    load: Load, place: str, value: Any, message: str
) -> None:
    with pytest.raises(ProfileError) as error:
        load(**{place: value})
    assert f"  {place}: " in str(error.value)
    assert message in str(error.value)
    assert f"(found {value!r})" in str(error.value)


@pytest.mark.parametrize(
    "part", ["../up", "a/b", "a\\b", "a'b", 'a"b', "a;b", ".a", "-a", "a\n", "", "é"]
)
def test_what_becomes_a_folder_a_key_or_a_table_has_no_other_part(load: Load, part: str) -> None:
    """Tables and folders are named after these, and partition keys are made of them."""
    source = {"path": "a.jsonl"}
    named: list[tuple[str, Any]] = [
        ("name", part),
        ("data.candidates", {part: source}),
        ("data.unseen", {part: source}),
        ("scoring.indicators", {part: "response_length"}),
        ("validation.strategies", {part: {"strategy": "random"}}),
        ("judge.first", part),
    ]
    for place, value in named:
        with pytest.raises(ProfileError, match=rf"  {place}.*"):
            load(**{place: value})


def test_all_faults_of_a_profile_come_in_one_error(load: Load) -> None:
    with pytest.raises(ProfileError) as error:
        load(**{"mixtures.seeds": "many", "rule.creterion": "aic", "selection.size": 0})
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == [
        "mixtures.seeds",
        "rule.creterion",
        "selection.size",
    ]


@pytest.mark.parametrize("value", [0, 1.5, "searchd", -3, [10]])
def test_a_selections_size_names_all_that_it_may_be(load: Load, value: Any) -> None:
    with pytest.raises(ProfileError) as error:
        load(**{"selection.size": value})
    [line] = str(error.value).splitlines()[1:]
    assert line.startswith("  selection.size: ")
    assert "'searched'" in line
    assert "integer" in line or "greater than 0" in line
    assert line.endswith(f"(found {value!r})")


@pytest.mark.parametrize("value", [10, 0.25, "searched"])
def test_a_selections_size_is_a_number_a_fraction_or_searched(load: Load, value: Any) -> None:
    assert load(**{"selection.size": value}).selection.size == value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("data.evaluation", {}, "exactly one of `path`"),
        ("data.evaluation", {"path": "a", "hub": "b"}, "exactly one of `path`"),
        ("data.evaluation", {"path": "a", "format": "fields"}, "goes with `format: fields`"),
        (
            "data.evaluation",
            {"path": "a", "fields": {"instruction": "q"}},
            "goes with `format: fields`",
        ),
        (
            "data.evaluation",
            {"path": "a", "format": "fields", "fields": {"output": "a"}},
            "at least `instruction`",
        ),
        (
            "data.evaluation",
            {"path": "a", "format": "fields", "fields": {"instruction": "q"}},
            "map `output`",
        ),
        ("models.base", {"hub": "a", "path": "b"}, "exactly one of `hub`"),
        ("models.base", {"package": "a"}, "`file` goes with `package`"),
        ("models.base", {"hub": "a", "file": "b"}, "`file` goes with `package`"),
        ("rule", {"p_enter": 0.2, "p_remove": 0.1}, "p_remove below p_enter"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    load: Load, place: str, value: Any, message: str
) -> None:
    with pytest.raises(ProfileError) as error:
        load(**{place: value})
    assert f"  {place}: " in str(error.value)
    assert message in str(error.value)


def test_reference_outputs_stand_in_for_an_output_column() -> None:
    fields = {"instruction": "q"}
    source = DataSource.model_validate(
        {"path": "a", "format": "fields", "fields": fields, "outputs": "references"}
    )
    assert source.fields == fields


# -- what a study is -----------------------------------------------------------------------------


def test_an_indicator_may_be_written_as_its_backend(load: Load) -> None:
    short = load(**{"scoring.indicators": {"mtld": "mtld"}})
    long = load(**{"scoring.indicators": {"mtld": {"backend": "mtld", "options": {}}}})
    assert short == long


def test_a_study_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_study("demo").mixtures.seeds = 5  # type: ignore[misc]


def test_state_follows_im_home_and_the_study_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    assert load_study("demo").warehouse == tmp_path / "demo" / "warehouse.duckdb"
    monkeypatch.delenv("IM_HOME")
    assert load_study("demo").folder == PROJECT_ROOT / "var" / "demo"


def test_the_resource_gives_assets_the_study() -> None:
    study = StudyResource(profile="demo").create_resource(dg.build_init_resource_context())
    assert study == load_study("demo")


# -- paths ---------------------------------------------------------------------------------------


def test_variables_in_a_path_expand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POOL", str(tmp_path))
    assert resolve_path("${POOL}/x.jsonl") == tmp_path / "x.jsonl"


def test_relative_paths_start_at_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_path("sample_data/x.jsonl") == PROJECT_ROOT / "sample_data" / "x.jsonl"


def test_a_variable_that_is_not_set_is_named() -> None:
    assert "IM_NOT_SET" not in os.environ
    with pytest.raises(ProfileError, match=r"'\$\{IM_NOT_SET\}/x' needs .* IM_NOT_SET"):
        resolve_path("${IM_NOT_SET}/x")


def test_what_a_variable_holds_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD", "/data/${HOME}")
    assert resolve_path("${ODD}") == Path("/data/${HOME}")


# -- names that are no one's yet --------------------------------------------------------------


@pytest.mark.parametrize("names", [["example"], ["Example"], ["mine", "Mine"]])
def test_a_pool_whose_tables_would_be_anothers_is_refused(load: Load, names: list[str]) -> None:
    pools = {name: {"path": "b.jsonl"} for name in names}
    with pytest.raises(
        ProfileError, match=rf"(?i)data\.unseen: the tables of a pool '{names[-1]}'"
    ):
        load(**{"data.unseen": pools})


@pytest.mark.parametrize("name", ["loss", "Log_Loss", "partition", "predicted_x", "LEN_IN"])
def test_an_indicator_whose_column_would_be_anothers_is_refused(load: Load, name: str) -> None:
    with pytest.raises(ProfileError, match=rf"(?i)scoring\.indicators: '{name}'") as caught:
        load(**{"scoring.indicators": {"len_in": "instruction_length", name: "mtld"}})
    assert "embedding" not in str(caught.value)  # the fault, and not the whole profile


# -- a ready rule --------------------------------------------------------------------------------

READY: dict[str, Any] = {"data": {"unseen": {"path": "b.jsonl"}}, "rule.source": "published_v1"}


def test_a_ready_rule_needs_neither_candidates_nor_an_evaluation_set(load: Load) -> None:
    study = load(**READY)
    assert study.fits_nothing
    assert study.data.evaluation is None
    assert not load().fits_nothing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule.source": "fitted"}, r"data\.candidates is missing: .*1 source.*ready rule"),
        ({"data": {"candidates": {"a": {"path": "a"}}, "unseen": {"path": "b"}}},
         r"data\.evaluation is missing"),
        ({"validation": {}}, "validation: needs finetunes"),
        ({"univariate": {}, "selection.size": "searched"},
         r"univariate and selection\.size: searched: needs finetunes"),
        ({"rule.source": "file"}, r"`path`, of a quality_rule\.json, goes with `source: file`"),
        ({"rule.path": "rule.json"}, "goes with `source: file` and only with it"),
        ({"rule": {"source": "file", "path": 7}}, r"rule\.path: Input should be a valid string"),
        ({"rule.source": "published_v3"}, "published_v2"),
        ({"data": {"unseen": {"path": []}}}, r"data\.unseen\.dolly\.path: .*at least 1 item"),
        ({"data": {"unseen": {"path": ["a.jsonl", 7]}}}, r"data\.unseen\.dolly\.path"),
    ],
)  # fmt: skip
def test_what_a_ready_rule_cannot_have_is_refused(
    load: Load, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        load(**READY | changes)
