"""The partition sets: one partition a mixture seed."""

import re

import dagster as dg

from im_resources.study import Study


def seed_key(seed: int) -> str:
    """The partition key of a mixture seed: 7 → ``seed-007``."""
    return f"seed-{seed:03d}"


def seed_of(key: str) -> int:
    """The mixture seed of a partition key. Raises ValueError when it is not one."""
    if not re.fullmatch(r"seed-\d{3,}", key):
        raise ValueError(f"{key!r} is not a partition key of the form seed-000")
    return int(key.removeprefix("seed-"))


def seed_partitions(study: Study) -> dg.StaticPartitionsDefinition:
    """The seeds of the study's profile."""
    return dg.StaticPartitionsDefinition([seed_key(i) for i in range(study.mixtures.seeds)])
