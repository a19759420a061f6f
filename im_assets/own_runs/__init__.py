"""Finetunes that were made elsewhere: which examples each saw, and what was measured of it."""

from typing import NamedTuple

from im_resources.study import Study

RUNS = "finished_runs"  # the asset with their members


class Members(NamedTuple):
    """Where the members of the sets are that the rule is fitted on: an asset, and its column with
    the name of each set."""

    asset: str
    column: str


def members_of(study: Study) -> Members:
    """Of own runs, or of the mixtures that the study draws."""
    return Members("mixed_samples", "seed") if study.runs is None else Members(RUNS, "run")
