"""Templates by name, and what they are known by in the fingerprints of results."""

from typing import Any

import pytest

from im_assets.experiments.finetuning import training_settings_id
from im_resources.language_model.prompts import encode
from im_resources.language_model.template_registry import (
    TEMPLATES,
    TemplateError,
    prompt_template,
    template_key,
    template_of,
)
from im_resources.study import Study, load_study
from tests.registries import isolate


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(TEMPLATES, monkeypatch)


def with_prompt(name: str) -> Study:
    study = load_study("demo")
    models = study.models.model_copy(update={"prompt": name})
    return study.model_copy(update={"models": models})


@pytest.mark.parametrize("name", ["plain", "alpaca", "chat"])
def test_a_first_version_is_known_by_its_name_as_it_was_before_there_were_versions(
    name: str,
) -> None:
    assert template_key(name) == name


def test_another_version_is_another_training() -> None:
    def shout(instruction: str, context: str) -> tuple[str, str]:
        return instruction.upper(), " "

    prompt_template("shout", version=1)(shout)
    first = training_settings_id(with_prompt("shout"))
    prompt_template("shout", version=2)(shout)
    assert template_key("shout") == "shout@2"
    assert training_settings_id(with_prompt("shout")) != first


def test_an_unknown_template_gets_a_suggestion() -> None:
    message = r"models\.prompt: unknown prompt template 'alpca'; did you mean 'alpaca'"
    with pytest.raises(TemplateError, match=message):
        template_of("alpca")


def test_a_template_may_write_the_special_tokens_itself(tokenizer: Any) -> None:
    @prompt_template("own_tokens", version=1, special_tokens=False)
    def own_tokens(instruction: str, context: str, tokenizer: Any) -> tuple[str, str]:
        return tokenizer.eos_token + instruction, ""

    encoded = encode(tokenizer, "own_tokens", "Why?", "", ["Because."], 64)
    assert encoded.prompt[0] == tokenizer.eos_token_id
    assert tokenizer.decode(encoded.prompt[1:]) == "Why?"


@pytest.mark.parametrize("written", ["Why?", ("Why?",), ("Why?", None), ["Why?", " "]])
def test_a_template_that_gives_something_else_is_named(tokenizer: Any, written: Any) -> None:
    prompt_template("odd", version=1)(lambda instruction, context: written)
    with pytest.raises(TemplateError, match=r"'odd' gave .*expected \(the prompt, what stands"):
        encode(tokenizer, "odd", "Why?", "", ["Because."], 64)
