"""The registry of trainers: how a set of examples becomes a finetuned model.

A trainer is a function in a module of this folder, or of a plugin, under the ``@trainer``
decorator; the profile's ``finetuning.trainer: <name>`` puts it to use. It takes a TrainingJob,
writes what evaluation needs into the job's folder (an adapter as PEFT saves it, or a whole model;
see ``im_resources/language_model/finetuned.py``), and returns the training curve. Its modules
import torch inside the function, since the code location imports them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from im_resources.language_model.training import OnStep, Training
from im_resources.registry import Registry
from im_resources.study import FinetuningSettings, ModelSettings, Study
from im_resources.study.fingerprints import settings_content

if TYPE_CHECKING:
    from im_resources.language_model.engines import Engines
    from im_resources.language_model.loading import LoadedModel
    from im_resources.language_model.prompts import Encoded

Train = Callable[..., Training]

# What was trained before there were trainers; its keys say nothing of a trainer.
FIRST = ("lora", 1)


class TrainerError(ValueError):
    """A trainer that cannot be used as the profile asks; says which and what would do."""


TRAINERS: "Registry[Trainer]" = Registry("trainer", __name__, TrainerError)


@dataclass(frozen=True)
class TrainingJob:
    """What a trainer is given.

    ``base`` is shared by all trials and must not be changed: ``base.replica()`` carries an adapter,
    ``trainable_copy(base)`` has weights of its own. ``examples`` (instruction, input, output) are
    in the set's order; whatever is random is drawn from ``seed``, so that the same job gives the
    same weights beside others and alone. ``folder`` is empty; what the trainer writes there is
    published when it returns. ``on_step`` takes (step, steps, tokens of the step). ``engine`` is
    where a trainer that trains ``together`` meets its neighbours.
    """

    base: "LoadedModel"
    examples: pd.DataFrame
    models: ModelSettings
    settings: FinetuningSettings
    seed: int
    folder: Path
    on_step: OnStep | None = None
    engine: "Engines | None" = None

    def encoded(self) -> list["Encoded"]:
        """The examples as token ids, by the study's prompt template and length."""
        from im_resources.language_model.prompts import encode_examples

        return encode_examples(self.base.tokenizer, self.models, self.examples)


@dataclass(frozen=True)
class Trainer:
    """How examples become a finetuned model.

    ``train(job, **options)`` writes into ``job.folder`` and returns the Training. ``version``
    changes when the same job would give other weights. ``ignores`` names the settings of
    ``finetuning`` that it does not read: they change no weights, and no key. ``quantized``: it
    also trains over a base in int8 or nf4. ``together``: several jobs, each in a thread of its own,
    are trained in shared steps of the job's ``engine``, where there is one.
    """

    name: str
    train: Train
    version: int
    ignores: tuple[str, ...] = ()
    quantized: bool = True
    together: bool = False


def trainer(
    name: str,
    *,
    version: int,
    ignores: tuple[str, ...] = (),
    quantized: bool = True,
    together: bool = False,
) -> Callable[[Train], Train]:
    """Register the decorated function as the trainer ``name`` (see Trainer).

    Raises TrainerError when another function has the name already, or when ``ignores`` names no
    setting.
    """
    unknown = set(ignores) - set(FinetuningSettings.model_fields)
    if unknown:
        raise TrainerError(f"trainer {name!r} ignores {', '.join(sorted(unknown))}: no setting")

    def register(train: Train) -> Train:
        TRAINERS.add(name, Trainer(name, train, version, ignores, quantized, together), train)
        return train

    return register


def trainer_of(settings: FinetuningSettings) -> tuple[Trainer, dict[str, Any]]:
    """The trainer that ``settings`` name, and its checked options.

    Raises TrainerError for an unknown trainer or option (with the nearest known name), an option
    that is missing, or a value of the wrong kind.
    """
    found = TRAINERS.get(settings.trainer, "finetuning.trainer")
    return found, TRAINERS.options(found.train, settings.options, "finetuning.options", skip=1)


def check_trainer(study: Study) -> None:
    """Check the profile's trainer when the profile is read.

    Raises TrainerError as ``trainer_of`` does, and when it cannot train in the profile's precision.
    """
    found, _ = trainer_of(study.finetuning)
    if study.models.precision in ("int8", "nf4") and not found.quantized:
        raise TrainerError(
            f"finetuning.trainer: {found.name} cannot train a base in models.precision: "
            f"{study.models.precision}; use fp32, bf16 or auto, or finetuning.trainer: lora"
        )


def trainer_key(settings: FinetuningSettings) -> dict[str, Any]:
    """Which of the settings change the weights, and the trainer's version: part of a trial's key.

    Raises TrainerError for an unknown trainer.
    """
    found = TRAINERS.get(settings.trainer, "finetuning.trainer")
    content = settings_content(settings)
    kept = {name: value for name, value in content.items() if name not in found.ignores}
    if (found.name, found.version) == FIRST:
        return kept
    return {**kept, "trainer_version": found.version}
