"""The columns of the rule's target in the report's tables."""

from im_assets.reporting.blocks import Column
from im_assets.reporting.gather import Gathered


def target_columns(found: Gathered, with_unit: bool = True) -> tuple[Column, ...]:
    """The measure, and on another scale than its own the target: Loss and Log loss."""
    target, unit = found.target, found.unit if with_unit else ""
    measure = Column(target.measure, target.measure_label.capitalize(), "loss", unit)
    if target.scale == "identity":
        return (measure,)
    return measure, Column(target.column, target.title, "loss")
