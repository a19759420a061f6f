"""Ready rules: read from a file, and compared with what they were fitted with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from im_assets.rule.document import to_json, write_rule
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Caution, Rule, UsedIndicator, UsedModel
from im_assets.rule.provenance import differences, provenance
from im_assets.rule.published import published_rule
from im_assets.rule.ready import RuleError, check_ready_rule, ready_rule, set_size
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import JudgeSettings, RuleSettings, Study
from tests.rule.data import random_study

INDICATORS = {"x0": "response_length", "x1": "mtld", "x2": "perplexity"}
FITTED = fit_rule(random_study(), ["x0", "x1"], RuleSettings())


@pytest.fixture
def make_study(tiny_folder: Path) -> Callable[..., Study]:
    """A study without candidates; keywords are the rule's settings and other blocks."""

    def made(models: dict[str, Any] | None = None, indicators: Any = None, **rule: Any) -> Study:
        base = {"path": str(tiny_folder)}
        return Study.model_validate(
            {
                "name": "here",
                "data": {"unseen": {"path": "none.jsonl"}},
                "models": {"base": base, "embedding": base, "precision": "fp32", **(models or {})},
                "scoring": {"indicators": indicators or INDICATORS},
                "rule": rule or {"source": "published_v1"},
            }
        )

    return made


def models_of(study: Study) -> Models:
    return Models.of(study, GpuResource(device="cpu"))


def compared(rule: Rule, study: Study) -> list[Caution]:
    return differences(rule, chosen(study.scoring), models_of(study))


def fitted_in(study: Study, rule: Rule = FITTED) -> Rule:
    return rule.model_copy(update=provenance(chosen(study.scoring), models_of(study)))


def test_a_file_gives_the_rule_without_what_was_said_of_it_elsewhere(tmp_path: Path) -> None:
    elsewhere = Caution(kind="not_as_fitted", note="elsewhere x0 was computed otherwise")
    path = tmp_path / "quality_rule.json"
    write_rule(FITTED.model_copy(update={"warnings": (*FITTED.warnings, elsewhere)}), path)
    rule = ready_rule(RuleSettings(source="file", path=str(path)))
    assert rule == FITTED
    assert rule.id == FITTED.id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "not a JSON document"),
        (b'{"format": "instruct', "not a JSON document"),
        (b"\xff\xfe{}", "utf-8"),
        (b"[" * 100_000, "not a JSON document"),
        (b"{}", "not a rule document"),
        (to_json(FITTED).replace('"version": 5', '"version": 99').encode(), "version 99"),
        (to_json(FITTED).replace('"estimate"', '"estimat"').encode(), r"damaged.*estimate"),
        (
            json.dumps(json.loads(to_json(FITTED)) | {"rule": {"constant": "one"}}).encode(),
            "damaged",
        ),
    ],
)
def test_a_file_that_is_no_rule_is_refused_by_name(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "rule.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuleError, match=rf"rule\.path: (.*rule\.json.*)?{message}"):
        ready_rule(RuleSettings(source="file", path=str(path)))
    with pytest.raises(RuleError, match="there is no file"):
        ready_rule(RuleSettings(source="file", path=str(tmp_path)))


def test_a_rule_of_another_profile_is_refused_before_anything_runs(
    tmp_path: Path, make_study: Callable[..., Study]
) -> None:
    path = tmp_path / "rule.json"
    file = {"source": "file", "path": str(path)}
    write_rule(fitted_in(make_study()), path)
    check_ready_rule(make_study(**file))
    with pytest.raises(RuleError, match=r"reads x1, .*has: x0, x11; add: x1: mtld.*mean 'x11'"):
        check_ready_rule(make_study(indicators={"x0": "response_length", "x11": "mtld"}, **file))
    with pytest.raises(RuleError, match=r"published_v1 reads reward, len_out, knn_6"):
        check_ready_rule(make_study())
    write_rule(FITTED.model_copy(update={"direction": "higher"}), path)
    with pytest.raises(RuleError, match=r"set rule\.target: \{measure: loss.*direction: higher"):
        check_ready_rule(make_study(**file))
    write_rule(FITTED.model_copy(update={"coefficients": ()}), path)
    with pytest.raises(RuleError, match="no indicator"):
        check_ready_rule(make_study(**file))


def test_what_is_computed_as_it_was_needs_no_word(make_study: Callable[..., Study]) -> None:
    study = make_study()
    assert compared(fitted_in(study), study) == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"indicators": INDICATORS | {"x1": "instruction_length"}}, "not_as_fitted",
         "x1 is computed with instruction_length, and the rule was fitted with mtld"),
        ({"indicators": INDICATORS | {"x2": "mtld"}}, None, ""),  # is not in the rule
        ({"models": {"max_length": 32}}, None, ""),  # nothing in the rule depends on it
        ({"models": {"reward": {"hub": "some/reward"}}}, None, ""),
    ],
)  # fmt: skip
def test_another_computation_is_told(
    make_study: Callable[..., Study], change: dict[str, Any], kind: str | None, words: str
) -> None:
    found = compared(fitted_in(make_study()), make_study(**change))
    assert [c.kind for c in found] == ([kind] if kind else [])
    assert all(words in c.note for c in found)


def test_a_pass_of_the_base_depends_on_how_it_is_read(make_study: Callable[..., Study]) -> None:
    by_ppl = fit_rule(random_study(slopes=(0.0, 0.0, 0.9)), ["x2"], RuleSettings())
    rule = fitted_in(make_study(), by_ppl)
    assert rule.indicators == ("x2",)
    found = compared(rule, make_study(models={"max_length": 32, "prompt": "alpaca"}))
    assert [c.kind for c in found] == ["not_as_fitted"] * 2
    assert "models.prompt is alpaca, and the rule was fitted with plain" in found[0].note
    assert "models.max_length is 32" in found[1].note
    [found_] = compared(rule, make_study(models={"precision": "bf16"}))
    assert found_.kind == "unproven"
    assert "x2 depends on it" in found_.note


def test_another_base_blocks_only_what_reads_it(
    make_study: Callable[..., Study], tiny_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_folder.iterdir():
        (other / file.name).symlink_to(file)
    (other / "model.safetensors").unlink()
    (other / "model.safetensors").write_bytes(b"of other weights; only hashed here")
    changed = {"base": {"path": str(other)}}
    [read] = compared(fitted_in(make_study()), make_study(models=changed))
    assert read.kind == "not_as_fitted"
    assert "x0 reads it" in read.note
    by_words = fit_rule(random_study(slopes=(0.0, 0.9)), ["x1"], RuleSettings())
    [unread] = compared(fitted_in(make_study(), by_words), make_study(models=changed))
    assert unread.kind == "unproven"
    assert "finetunes of" in unread.note


def test_a_rule_that_does_not_say_how_it_was_fitted_is_unproven(
    make_study: Callable[..., Study],
) -> None:
    [caution] = compared(FITTED, make_study())
    assert caution.kind == "unproven"
    assert "x0, x1" in caution.note


def test_a_published_rule_is_never_more_than_unproven(make_study: Callable[..., Study]) -> None:
    names = {"reward": "embedding_cosine_proxy", "len_out": "response_length",
             "knn_6": "nearest_neighbour"}  # fmt: skip
    found = compared(published_rule("published_v1"), make_study(indicators=names))
    assert {c.kind for c in found} == {"unproven"}
    assert "fitted with reward_model" in found[0].note
    assert "LLaMA-7B. len_out reads it" in found[1].note


def test_the_papers_models_are_known_by_their_names() -> None:
    rule = published_rule("published_v2")
    assert rule.indicators_used[0] == UsedIndicator(
        name="reward", backend="reward_model", uses=("reward",)
    )
    assert UsedModel(role="unieval", name="MingZhong/unieval-dialog") in rule.models_used


def test_sets_are_of_the_size_that_the_rule_was_fitted_on(
    make_study: Callable[..., Study],
) -> None:
    study = make_study()
    assert set_size(published_rule("published_v1"), study) == 2000
    assert set_size(FITTED, study) == study.mixtures.size  # it does not say
    assert set_size(FITTED.model_copy(update={"set_size": 64}), study) == 64


def test_a_rating_by_another_judge_is_another_number(make_study: Callable[..., Study]) -> None:
    settings = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "one"}

    def judged(**changes: Any) -> Study:
        study = make_study(indicators={"x0": "response_length", "x1": "judge_rating"})
        judge = JudgeSettings.model_validate(settings | changes)
        return study.model_copy(update={"judge": judge})

    rule = fitted_in(judged())
    assert compared(rule, judged(timeout=3)) == []
    [other] = compared(rule, judged(model="two"))
    assert other.kind == "not_as_fitted"
    assert other.note == "the judge is two, and the rule was fitted with one. x1 reads it."
    [elsewhere] = compared(rule, judged(base_url="http://127.0.0.1:8/v1"))
    assert "the judge is one, and the rule was fitted with one at another place" in elsewhere.note
    local = fitted_in(judged(backend="local"))
    assert compared(local, judged(backend="local")) == []
