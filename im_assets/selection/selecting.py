"""A selection as a table, against chance, and as a file to finetune on."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from im_assets.candidates.format_registry import Write
from im_assets.candidates.formats.turns import write_messages
from im_assets.candidates.tracing import PLACE, with_place
from im_assets.common.tracking import tracked
from im_assets.rule.model import Rule
from im_assets.rule.target import PAPER
from im_resources.turns import Turn, turns_in


class SelectionError(ValueError):
    """A selection that cannot be made; says what is there and what was asked for."""


def ranked_table(examples: pd.DataFrame, indicators: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """The examples with rank, indicators and what the rule predicts.

    Args:
        examples: one row an example_id, best first.
        indicators: one row an example_id (index), one column an indicator; of more examples too.

    Returns:
        ``rank`` (1 = first), the columns of both frames, all those of the examples' places, and
        what the rule predicts (``predicted_log_loss``).

    Raises:
        ValueError: an example lacks an indicator of the rule.
    """
    # A source's own column may have been read into an indicator of the same name.
    texts = examples.drop(columns=examples.columns.intersection(indicators.columns))
    table = with_place(texts).merge(
        indicators, how="left", left_on="example_id", right_index=True, validate="1:1"
    )
    table = table.reset_index(drop=True)
    table[rule.predicts.predicted_column] = rule.predict_examples(table)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def compare_with_random(
    pool: pd.DataFrame,
    positions: Sequence[int],
    columns: Sequence[str],
    draws: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Means of the selection against random subsets of the same size.

    Args:
        pool: the whole pool, with the numeric ``columns``.
        positions: rows of ``pool`` that are selected.

    Returns:
        One row a column: selected, random (mean over draws), random_sd (standard deviation of the
        draws' means), z = (selected - random) / random_sd.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    values, size = pool[list(columns)].to_numpy(dtype=float), len(positions)
    means = np.array(
        [
            values[generator.choice(len(values), size, replace=False)].mean(0)
            for _ in tracked(range(draws), "comparing with random subsets", "draws")
        ]
    )
    selected = values[list(positions)].mean(axis=0)
    random, spread = means.mean(axis=0), means.std(axis=0)
    z = np.divide(selected - random, spread, out=np.zeros_like(spread), where=spread > 0)
    return pd.DataFrame(
        {"mean of": columns, "selected": selected, "random": random, "random_sd": spread, "z": z}
    )


def shaped(selection: pd.DataFrame, write: Write | None) -> list[dict[str, Any]]:
    """The examples as rows to train on: all in one shape, which is that of their source.

    Args:
        selection: instruction, input, output, and turns where some are conversations.
        write: of the source's data format. None: as instruction, input and output, or, where one is
            a conversation all the same, as ``messages``.
    """
    texts, turns = ["instruction", "input", "output"], turns_in(selection)
    rows = selection[texts].to_dict("records")
    if write is None and not any(turns):
        return [{str(name): text for name, text in row.items()} for row in rows]
    shape = write or write_messages
    return [
        shape([*(before or _one_turn(row)), Turn("assistant", row["output"])])
        for row, before in zip(rows, turns, strict=True)
    ]


def _one_turn(row: Mapping[Any, str]) -> list[Turn]:
    return [Turn("user", "\n\n".join(filter(None, (row["instruction"], row["input"]))))]


def json_lines(
    examples: pd.DataFrame, write: Write | None, beside: Sequence[str] = ("example_id",)
) -> Iterator[str]:
    """Each example as a line of JSON: ``shaped`` by ``write``, and the columns ``beside``, where it
    came from, and its category; null where unknown."""
    facts = with_place(examples).to_dict("records")
    names = [*beside, *PLACE, "category"]
    for texts, row in zip(shaped(examples, write), facts, strict=True):
        told = {name: None if pd.isna(row.get(name)) else row[name] for name in names}
        # A column of the shape's own keeps its value, whatever its name.
        yield json.dumps(texts | told | texts, ensure_ascii=False) + "\n"


def export_jsonl(
    selection: pd.DataFrame,
    path: Path,
    predicted: str = PAPER.predicted_column,
    write: Write | None = None,
) -> None:
    """Write the examples as JSONL, by rename: ``json_lines`` with rank and the column
    ``predicted``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    with temporary.open("w", encoding="utf-8") as file:
        for line in json_lines(selection, write, ["example_id", "rank", predicted]):
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
