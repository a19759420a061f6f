"""The evaluation set in long form: one row per reference output of an instruction.

Its rows are cleaned less than candidates: they are what quality is measured against, so only what
cannot be measured (no instruction, no output) or would be counted twice goes into quarantine.
"""

import pandas as pd

from im_assets.candidates.content import example_id, normalized
from im_assets.candidates.format_registry import VERIFIABLE
from im_assets.candidates.quarantine import Reason, dropped_row, quarantine
from im_assets.candidates.tracing import OWN_ID, Place
from im_assets.common.patterns import pattern_fault
from im_resources.texts import normalize
from im_resources.turns import TURNS, turns_columns

REFERENCE_COLUMNS = [
    "eval_id", "output_index", "source", "line", "instruction", "input", "output", "category",
    "file", OWN_ID, *VERIFIABLE,
]  # fmt: skip


def references(rows: pd.DataFrame, rejected: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spread an evaluation source over its reference outputs.

    Args:
        rows: as from `read_source`, with ``outputs`` (lists) or a single ``output`` each, and with
            ``answer`` and ``pattern`` where the source has them.
        rejected: rows that the reader could not use; they join the quarantine.

    Returns:
        (references, quarantined), with ``turns`` where some prompt is a conversation. ``eval_id``
        is a hash of the prompt, so the outputs of one prompt
        count as one instruction's also when they stand on several lines; ``output_index`` numbers
        an instruction's outputs from 0. What is right, ``answer`` and ``pattern`` ('' where none),
        is the instruction's: the first that one of its rows gives. A quarantined row is one output,
        or a row without any.
    """
    kept: list[tuple[object, ...]] = []
    dropped: list[tuple[object, ...]] = []
    first: dict[tuple[str, str], Place] = {}
    counts: dict[str, int] = {}
    right: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        place, category = Place.of(row), row["category"]
        texts = normalized(row, "instruction", "input")
        prompt, turns = (texts["instruction"], texts["input"]), texts.get(TURNS)
        identity = example_id(*texts.values())
        outputs = row["outputs"] if "outputs" in row else [row["output"]]
        given = {field: str(row.get(field, "")).strip() for field in VERIFIABLE}
        known = right.setdefault(identity, dict.fromkeys(VERIFIABLE, ""))
        fault = pattern_fault(given["pattern"])
        for output in map(normalize, outputs or [""]):
            if not prompt[0]:
                reason = Reason("empty", "empty instruction")
            elif not output:
                reason = (
                    Reason("empty", "empty output") if outputs else Reason("no output", "no output")
                )
            elif fault:
                reason = Reason("bad pattern", f"bad pattern: {fault}")
            elif (twin := first.get((identity, output))) is not None:
                said = f"exact duplicate of an output on {twin}"
                reason = Reason("exact duplicate", said, twin)
            else:
                index = counts[identity] = counts.get(identity, -1) + 1
                first[identity, output] = place
                right[identity] = {field: known[field] or given[field] for field in VERIFIABLE}
                start = identity, index, place.source, place.line
                further = place.file, place.own_id, turns
                kept.append((*start, *prompt, output, category, *further))
                continue
            dropped.append(dropped_row(place, reason, (*prompt, output)))
    whole = [(*values, *right[str(values[0])].values(), turns) for *values, turns in kept]
    frame = pd.DataFrame(whole, columns=[*REFERENCE_COLUMNS, TURNS])
    columns = [*REFERENCE_COLUMNS, *turns_columns(frame)]
    return frame[columns], quarantine(dropped, rejected)
