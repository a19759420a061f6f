"""The two parts of the evaluation set: what rules are fitted on, and what is reported on.

A rule that was fitted to losses on some instructions may hold for these alone, and a selection that
it draws would be compared with others on the ground that the rule was made on. So
``evaluation.holdout`` keeps a share of the instructions out of every fit, and what is said of
selections (verdicts, deciles, sizes, a judge's preference) is said of these. Every finetune is
measured once, on all instructions; the parts only say whose rows count.

Where an instruction falls is decided by its words alone: another instruction more or less moves no
other, and one that differs in case, punctuation or layout falls where it does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from im_assets.common.digests import digest
from im_assets.common.words import words_of
from im_assets.experiments.evaluation import evaluation_rows
from im_resources.study import EvaluationSettings, fingerprint
from im_resources.turns import asked

FEWEST = 4  # instructions of a part: the mean of fewer is theirs, and not that of a kind

PartName = Literal["all", "fitting", "held_out", "half"]
COLUMNS = {
    "part": ("text", "Instructions it was measured on: all, fitting or held_out"),
    "instructions": ("bigint", "How many they are"),
}
MEASURED = {
    **COLUMNS,
    "measured_id": (
        "text",
        "Fingerprint of the evaluation set and of the instructions measured on",
    ),
}


class HoldoutError(ValueError):
    """A part of the evaluation set that is too small; says how many instructions each part has."""


@dataclass(frozen=True)
class Part:
    """Instructions of the evaluation set.

    Attributes:
        total: how many are evaluated on altogether.
    """

    name: PartName
    eval_ids: frozenset[str]
    total: int

    @property
    def words(self) -> str:
        """Which instructions, and how many: ``the 12 of 48 instructions that are held out``."""
        return told(self.name, len(self.eval_ids), self.total)

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows (with eval_id) of these instructions."""
        return rows[rows["eval_id"].isin(self.eval_ids)]


@dataclass(frozen=True)
class Split:
    """What rules are fitted on, and what is reported on: the same, without a holdout."""

    fitting: Part
    reported: Part


def split_of(eval_set: pd.DataFrame, settings: EvaluationSettings) -> Split:
    """The parts of the instructions that are evaluated on.

    Raises HoldoutError when a part holds fewer than ``FEWEST``.
    """
    rows = evaluation_rows(eval_set, settings)
    ids = frozenset(rows["eval_id"].astype(str))
    if settings.holdout is None:
        whole = Part("all", ids, len(ids))
        return Split(whole, whole)
    out = frozenset(held_out(rows, settings.holdout))
    parts = (Part("fitting", ids - out, len(ids)), Part("held_out", out, len(ids)))
    require(settings.holdout, *((part.name, len(part.eval_ids)) for part in parts))
    return Split(*parts)


def held_out(rows: pd.DataFrame, share: float) -> set[str]:
    """The eval_ids that are held out, of rows with eval_id, instruction, input (and turns)."""
    each = rows.drop_duplicates("eval_id").to_dict("records")
    return {str(row["eval_id"]) for row in each if _place(asked(row)) < share}


def reported_rows(eval_set: pd.DataFrame, settings: EvaluationSettings) -> pd.DataFrame:
    """The rows of the evaluation set that are reported on; all of them without a holdout."""
    if settings.holdout is None:
        return eval_set
    out = held_out(eval_set, settings.holdout)
    require(settings.holdout, ("held_out", len(out)))
    return eval_set[eval_set["eval_id"].isin(out)].reset_index(drop=True)


def reported_name(settings: EvaluationSettings) -> PartName:
    """What the instructions that are reported on are called."""
    return "all" if settings.holdout is None else "held_out"


def require(share: float | None, *parts: tuple[PartName, int]) -> None:
    """Raise HoldoutError when a part has fewer than ``FEWEST`` instructions."""
    if share is None or all(count >= FEWEST for _, count in parts):
        return
    counts = ", ".join(f"{_NAMES.get(name, name)}: {count}" for name, count in parts)
    raise HoldoutError(
        f"evaluation.holdout: {share:g} leaves a part with fewer than {FEWEST} instructions "
        f"({counts}); add instructions, raise evaluation.max_instructions, or choose a share that "
        "leaves both parts more"
    )


def measured_columns(
    name: PartName, rows: pd.DataFrame, evaluation_ids: Iterable[str], share: float | None
) -> dict[str, str | int]:
    """What a table of measured values says about the instructions behind them (``MEASURED``).

    Args:
        rows: those that the measure reads of the trials, with eval_id.
        evaluation_ids: of the trials' losses.

    Raises HoldoutError when they are of fewer than ``FEWEST`` instructions: those that carry what
    the measure needs may be few.
    """
    ids = sorted(set(rows["eval_id"].astype(str)))
    if len(rows):
        require(share, (name, len(ids)))
    measured_id = fingerprint("measured on", sorted(set(map(str, evaluation_ids))), ids)
    return {"part": name, "instructions": len(ids), "measured_id": measured_id}


def told(name: str, count: int, total: int | None = None) -> str:
    """Which instructions something was measured on, in words."""
    of = f"{count}" if total is None or total == count else f"{count} of {total}"
    return {
        "fitting": f"the {of} instructions that rules are fitted on",
        "held_out": f"the {of} instructions that are held out of every fit",
        "half": f"{count} instructions, one half of them,",
    }.get(name, f"all {count} instructions")


_NAMES: dict[PartName, str] = {"fitting": "fitted on", "held_out": "held out"}


def _place(content: str) -> float:
    """A number in [0, 1) that belongs to a text's words."""
    words = " ".join(words_of(content)) or content
    return int(digest(0, f"holdout:{words}")[:13], 16) / 16**13
