"""The columns of the rule's target in the report's tables, and what they were measured on."""

import pandas as pd

from im_assets.experiments.holdout import told
from im_assets.reporting.blocks import Column, Text
from im_assets.reporting.gather import Gathered


def target_columns(found: Gathered, with_unit: bool = True) -> tuple[Column, ...]:
    """The measure, and on another scale than its own the target: Loss and Log loss."""
    target, unit = found.target, found.unit if with_unit else ""
    measure = Column(target.measure, target.measure_label.capitalize(), "loss", unit)
    if target.scale == "identity":
        return (measure,)
    return measure, Column(target.column, target.title, "loss")


def measured_on(frame: pd.DataFrame | None) -> tuple[Text, ...]:
    """Which instructions of the evaluation set a table's values are of, and how many; nothing where
    the table does not say."""
    if (words := measured_words(frame)) is None:
        return ()
    return (Text(f"Measured on {words}.", "note"),)


def measured_words(frame: pd.DataFrame | None) -> str | None:
    """The instructions that a table's values are of, in words."""
    if frame is None or frame.empty or not {"part", "instructions"} <= set(frame.columns):
        return None
    parts = frame[["part", "instructions"]].drop_duplicates()
    return " and ".join(told(str(part), int(n)) for part, n in parts.itertuples(index=False))
