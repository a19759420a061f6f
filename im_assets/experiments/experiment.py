"""The partition sets, and what finetunes on them: mixture seeds, univariate bins, selection arms.

Whatever the study asks, it asks by finetuning on sets of examples and evaluating: random mixtures,
bins of one indicator, selections. An Experiment names the assets of one such question; the same
factories build them all. Every partition key ends in ``seed-000``, the seed of its finetune.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from im_resources.study import Study, UnivariateSettings


def seed_key(seed: int) -> str:
    """The partition key of a mixture seed: 7 → ``seed-007``."""
    return f"seed-{seed:03d}"


def seed_of(key: str) -> int:
    """The finetune's seed in a partition key. Raises ValueError when it has none."""
    match = re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*-)?seed-(\d{3,})", key)
    if match is None:
        raise ValueError(f"{key!r} is not a partition key that ends in seed-000")
    return int(match[1])


def bin_key(indicator: str, number: int) -> str:
    """The partition key of a univariate bin: ``ppl-bin-0-seed-000``, 0 being the highest values.

    All bins are finetuned with one seed, so that they differ in their data alone.
    """
    return f"{indicator}-bin-{number}-{seed_key(0)}"


def arm_key(arm: str, size: int, seed: int) -> str:
    """The partition key of a finetune on a selection: ``rule-1000-seed-002``."""
    return f"{arm}-{size}-{seed_key(seed)}"


@dataclass(frozen=True)
class Experiment:
    """Sets of examples to finetune on and evaluate, one partition each.

    ``samples``, ``adapters`` and ``losses`` are the names of its assets; ``examples`` of the asset
    with the texts; ``column`` holds the partition key in its tables; ``noun`` is what a set is
    called. ``group`` is the assets' group, or empty: each in the group of its room.
    """

    samples: str
    adapters: str
    losses: str
    examples: str
    column: str
    noun: str
    keys: tuple[str, ...]
    group: str = ""

    @property
    def partitions(self) -> dg.StaticPartitionsDefinition:
        return dg.StaticPartitionsDefinition(list(self.keys))


def mixture_experiment(study: Study) -> Experiment:
    """The random mixtures that the rule is fitted on."""
    return Experiment(
        samples="mixed_samples",
        adapters="finetuned_adapters",
        losses="eval_losses",
        examples="candidate_datasets",
        column="seed",
        noun="mixtures",
        keys=tuple(map(seed_key, study.mixtures.seed_numbers)),
    )


def univariate_experiment(study: Study, indicators: Sequence[str]) -> Experiment:
    """The bins of each of ``indicators`` (paper, univariate analysis)."""
    settings = study.univariate or UnivariateSettings()
    return Experiment(
        samples="univariate_samples",
        adapters="univariate_adapters",
        losses="univariate_losses",
        examples="candidate_datasets",
        column="bin",
        noun="bins",
        keys=tuple(bin_key(name, i) for name in indicators for i in range(settings.bins)),
        group="univariate",
    )


def validation_experiment(arms: Mapping[str, object]) -> Experiment:
    """The selections that are finetuned on to see whether they are worth it, by partition key."""
    return Experiment(
        samples="selection_samples",
        adapters="selection_adapters",
        losses="selection_losses",
        examples="dolly_dataset",
        column="arm",
        noun="selections",
        keys=tuple(arms),
        group="validation",
    )
