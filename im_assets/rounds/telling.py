"""The table of the rounds, one row each, and what it says in words."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from im_assets.common.formatting import between, rows_of, shown
from im_assets.rounds.deciding import Decision
from im_assets.rounds.errors import Estimate, change, error_of, verdict
from im_assets.rounds.measured import Round
from im_assets.rule.target import Target
from im_assets.validation.arms import RULE

COLUMNS = {
    "round": ("bigint", "The round, from 1"),
    "points": ("bigint", "Points that its rule was fitted on: mixtures, and sets of rounds before"),
    "rule_id": ("text", "Fingerprint of its rule"),
    "formula": ("text", "Its rule as a formula"),
    "sets": ("bigint", "Sets finetuned on in the round"),
    "rmse": (
        "double",
        "Root mean square of measured less predicted target (log loss) over its sets",
    ),
    "rmse_low": ("double", "Lower end of its 95 % interval for new sets; null: not known"),
    "rmse_high": ("double", "Upper end"),
    "rule_rmse": ("double", "The same over the sets of the strategy rule alone"),
    "change": ("double", "rmse less that of the round before"),
    "change_low": ("double", "Lower end of its 95 % interval for new sets; null: not known"),
    "change_high": ("double", "Upper end"),
    "verdict": ("text", "fell, did_not_fall or cannot_tell: the change against its interval"),
    "less_random": ("double", "Mean measure (loss) of the rule's sets less that of random ones"),
    "less_random_low": (
        "double",
        "Lower end of its 95 % interval for new finetunes and instructions; null: not known",
    ),
    "less_random_high": ("double", "Upper end"),
    "stopped": ("boolean", "Whether the round was not made"),
    "why": ("text", "Why it was made, or not"),
}


def rounds_table(
    rounds: Sequence[Round], decisions: Sequence[Decision], gains: Sequence[Estimate | None]
) -> pd.DataFrame:
    """One row a round: see ``COLUMNS``.

    Args:
        gains: of each round the rule's sets less random ones; None where that is not known.
    """
    rows = []
    for place, (one, decision, gain) in enumerate(zip(rounds, decisions, gains, strict=True)):
        row: dict[str, Any] = {
            "round": one.number,
            "points": one.rule.n,
            "rule_id": one.rule.id,
            "formula": one.rule.formula,
            "sets": len(one.points),
            "stopped": not decision.goes_on,
            "why": decision.why,
        }
        errors = one.errors
        if errors is not None:
            row |= _interval("rmse", error_of(errors))
            row["rule_rmse"] = errors.of(RULE).rmse
            before = rounds[place - 1].errors if place else None
            if before is not None:
                found = change(before, errors)
                row |= _interval("change", found) | {"verdict": verdict(found)}
        if gain is not None:
            row |= _interval("less_random", gain)
        rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    kinds = {"double": "float64", "bigint": "int64", "text": "string", "boolean": "bool"}
    return table.astype({name: kinds[kind] for name, (kind, _) in COLUMNS.items()})


def sentences(table: pd.DataFrame, target: Target) -> list[str]:
    """What the rounds say, a sentence each.

    Args:
        table: as ``rounds_table`` gives it.
    """
    rows = rows_of(table)
    made = [row for row in rows if not row.stopped]
    found = []
    for row in made[:1]:
        found.append(
            f"Where it selects, the rule of round 1 was off by {shown(row.rmse, 'loss')} in "
            f"{target.label} ({between(row.rmse_low, row.rmse_high, 'loss')})."
        )
    for row in made[1:]:
        interval = between(row.change_low, row.change_high, "signed")
        known = "its interval is not known" if pd.isna(row.change_low) else interval
        found.append(
            f"That of round {row.round}, fitted on {shown(row.points, 'int')} points, was off by "
            f"{shown(row.rmse, 'loss')}: a change of {shown(row.change, 'signed')} ({known}), "
            f"which {_WORDS[row.verdict]}."
        )
    for row in made[-1:]:
        if not pd.isna(row.less_random):
            interval = between(row.less_random_low, row.less_random_high, "signed")
            known = "its interval is not known" if pd.isna(row.less_random_low) else interval
            found.append(
                f"What the rule selected in round {row.round} differs in {target.measure_label} by "
                f"{shown(row.less_random, 'signed')} from random sets of the same candidates "
                f"({known}): {_against_random(row, target)}."
            )
    stopped = [row for row in rows if row.stopped]
    if stopped:
        found.append(
            f"Round {stopped[0].round} was not made: {stopped[0].why}. A stop goes by the point "
            "estimates, and is no proof that further rounds would not help."
        )
    return found


def _against_random(row: Any, target: Target) -> str:
    low, high = row.less_random_low, row.less_random_high
    if pd.isna(low) or low <= 0 <= high:
        return "not distinguishable"
    return "better" if (high < 0) == (target.direction == "lower") else "worse"


_WORDS = {
    "fell": "is a fall beyond what other sets would give",
    "did_not_fall": "is a rise beyond what other sets would give",
    "cannot_tell": "other sets could have given without any true change",
}


def _interval(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
