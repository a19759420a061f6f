"""The registry of prompt templates: how an instruction is put to the base model.

A template is a function under the ``@prompt_template`` decorator: in a module of
``im_resources/language_model/templates/``, or in one that the profile names as a plugin. The line
``models.prompt: <name>`` puts it to use (docs/extending.md).
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from im_resources.registry import Registry
from im_resources.study import ModelSettings

Write = Callable[..., tuple[str, str]]
Registered = TypeVar("Registered", bound=Write)


class TemplateError(ValueError):
    """A prompt template that there is not, or that gives something else than texts."""


@dataclass(frozen=True)
class Cue:
    """What stands in a conversation before one of its replies, and right behind it.

    Attributes:
        prompt: from the reply before to where this one starts.
        lead: between the prompt and the reply; tokenized with the reply.
        end: what closes the reply, learned with it; None: the end-of-sequence token.
    """

    prompt: str
    lead: str = ""
    end: str | None = None


WriteTurns = Callable[..., Sequence[Cue]]


@dataclass(frozen=True)
class PromptTemplate:
    """How a prompt is written.

    Attributes:
        write: gives, of an instruction and its input ('' where there is none), the prompt's text up
            to where the response starts, and what stands between it and the response (a blank, or
            nothing), which is tokenized with the response. With a third parameter ``tokenizer`` it
            is given the base model's.
        version: changes when the same instruction would get another prompt.
        special_tokens: whether the tokenizer adds what it begins a text with; off where the
            template writes these tokens itself.
        turns: gives, of the turns that a reply follows, and the tokenizer, a Cue for each reply
            among them and for the one that follows. None: each exchange is written as ``write``
            does it (see ``conversations.cues_of``).
    """

    name: str
    write: Write
    version: int
    special_tokens: bool
    turns: WriteTurns | None = None


TEMPLATES = Registry[PromptTemplate](
    "prompt template", "im_resources.language_model.templates", TemplateError
)


def prompt_template(
    name: str, *, version: int, special_tokens: bool = True, turns: WriteTurns | None = None
) -> Callable[[Registered], Registered]:
    """Register the decorated function as the template ``name`` (see PromptTemplate).

    Raises TemplateError when another function has the name already.
    """

    def register(write: Registered) -> Registered:
        TEMPLATES.add(name, PromptTemplate(name, write, version, special_tokens, turns), write)
        return write

    return register


def template_of(name: str) -> PromptTemplate:
    """The template ``name``. Raises TemplateError when there is none."""
    return TEMPLATES.get(name, "models.prompt")


def template_key(name: str) -> str:
    """What a template is known by in the fingerprints of results: its name, and a later version.

    Raises TemplateError when there is no such template.
    """
    version = template_of(name).version
    return name if version == 1 else f"{name}@{version}"


def learned_key(models: ModelSettings) -> list[Any]:
    """What of the settings decides which tokens an example is, and which of them are learned.

    Raises TemplateError when there is no such template.
    """
    key: list[Any] = [template_key(models.prompt), models.max_length]
    return key if models.loss_turns == "all" else [*key, models.loss_turns]


def write_prompt(
    template: PromptTemplate, instruction: str, context: str, tokenizer: Any
) -> tuple[str, str]:
    """The prompt's text, and what stands between it and the response.

    Raises TemplateError when the template gives something else.
    """
    given = {"tokenizer": tokenizer} if "tokenizer" in _parameters(template.write) else {}
    written = template.write(instruction, context, **given)
    if not (isinstance(written, tuple) and [type(part) for part in written] == [str, str]):
        raise TemplateError(
            f"prompt template {template.name!r} gave {written!r}; expected (the prompt, what "
            "stands between it and the response)"
        )
    return written


@cache
def _parameters(write: Write) -> frozenset[str]:
    return frozenset(inspect.signature(write).parameters)
