"""Choose from unseen data by the rule, lowest predicted log loss first (paper: Dolly)."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from im_assets.rule.model import Rule


class SelectionError(ValueError):
    """A selection that cannot be made; says what is there and what was asked for."""


def rank_by_rule(examples: pd.DataFrame, indicators: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """All examples with their indicators, predicted log loss and rank, best first.

    Args:
        examples: the unseen pool, one row an example_id.
        indicators: one row an example_id (index), one column an indicator.

    Returns:
        ``examples`` joined with ``indicators``, ``predicted_log_loss`` and ``rank`` (1 = lowest
        predicted log loss; ties by example_id).

    Raises:
        SelectionError: the rule has no indicator, so it ranks nothing.
        ValueError: an example lacks an indicator of the rule.
    """
    if not rule.indicators:
        raise SelectionError(
            "the rule has no indicator (none was significant on these mixtures), so it cannot rank "
            "examples; use more mixtures, a laxer rule.p_enter, or rule.source: published_v1"
        )
    ranked = examples.merge(
        indicators, how="left", left_on="example_id", right_index=True, validate="1:1"
    )
    ranked["predicted_log_loss"] = rule.predict(ranked)
    ranked = ranked.sort_values(["predicted_log_loss", "example_id"], ignore_index=True)
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    return ranked


def select(ranked: pd.DataFrame, size: int) -> pd.DataFrame:
    """The ``size`` best. Raises SelectionError when the pool holds fewer."""
    if size > len(ranked):
        raise SelectionError(
            f"selection.size is {size}, but the unseen pool holds only {len(ranked)} examples"
        )
    return ranked.head(size)


def compare_with_random(
    ranked: pd.DataFrame, size: int, columns: Sequence[str], draws: int, seed: int = 0
) -> pd.DataFrame:
    """Means of the selection against random subsets of the same size.

    Returns:
        One row a column: selected, random (mean over draws), random_sd (standard deviation of the
        draws' means), z = (selected - random) / random_sd.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    values = ranked[list(columns)].to_numpy(dtype=float)
    means = np.array(
        [values[generator.choice(len(values), size, replace=False)].mean(0) for _ in range(draws)]
    )
    selected, random, spread = values[:size].mean(axis=0), means.mean(axis=0), means.std(axis=0)
    z = np.divide(selected - random, spread, out=np.zeros_like(spread), where=spread > 0)
    return pd.DataFrame(
        {"mean of": columns, "selected": selected, "random": random, "random_sd": spread, "z": z}
    )


def export_jsonl(selection: pd.DataFrame, path: Path) -> None:
    """Write instruction, input, output (and rank, predicted log loss) as JSONL, by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    columns = ["instruction", "input", "output", "example_id", "rank", "predicted_log_loss"]
    with temporary.open("w", encoding="utf-8") as file:
        for row in selection[columns].to_dict("records"):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
