"""The mixtures and their losses, against the base model's own."""

import pandas as pd

from im_assets.common.formatting import shown
from im_assets.experiments.figures import trial_values_figure
from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made
from im_assets.reporting.sections.columns import measured_on, target_columns

KEY, TITLE = "mixtures", "The mixtures and their {}"

DRAWN = (
    "Each dot is one model, finetuned on one random mixture and measured on the same evaluation set"
)
OWN = "Each dot is one of your finished runs, as its file says"


def _sizes(table: pd.DataFrame) -> list[Fact]:
    least, most = int(table["n_examples"].min()), int(table["n_examples"].max())
    if least == most:
        return [Fact("size", "examples in each", most, "int")]
    return [
        Fact("least_size", "examples in the smallest", least, "int"),
        Fact("size", "examples in the largest", most, "int"),
    ]


def _confounded(table: pd.DataFrame) -> list[Text]:
    """A warning where mixtures differ in their size."""
    least, most = table["n_examples"].min(), table["n_examples"].max()
    if least == most:
        return []
    return [
        Text(
            f"They have {shown(least, 'int')} to {shown(most, 'int')} examples. How many there are "
            "changes what is measured by itself: where an indicator rises with the size, the rule "
            "cannot tell the one from the other.",
            "warning",
        )
    ]


def section(found: Gathered) -> Section:
    """Every mixture's loss in order, and how far finetuning moved the base model."""
    table, target, unit = found.mixtures, found.target, found.unit
    title = TITLE.format(target.plural if target.measure == "loss" else "measures")
    if table is None:
        return not_made(KEY, title, "indicator_table")
    base, what = found.base, target.measure_label
    ordered = table.sort_values([target.measure, "partition"], ignore_index=True)
    values = ordered[target.measure]
    facts = [
        Fact("mixtures", "mixtures", len(ordered), "int"),
        *_sizes(ordered),
        Fact("lowest", f"lowest {what}", values.min(), "loss", unit),
        Fact("highest", f"highest {what}", values.max(), "loss", unit),
    ]
    if len(ordered) > 1:
        facts.append(Fact("sd", "standard deviation", values.std(ddof=1), "loss", unit))
    if base is not None:
        better = int((target.sign * values < target.sign * base).sum())
        side = "below" if target.direction == "lower" else "above"
        facts += [
            Fact("base", "base model, not finetuned", base, "loss", unit),
            Fact("better_than_base", f"mixtures {side} the base model", better, "int"),
        ]
    own = found.study.runs is not None
    with_base = "" if own else f", with the base model's {what}"
    chart = trial_values_figure(ordered, base, target=target)
    names = [
        Column("partition", "Mixture", "text"),
        Column("n_examples", "Examples", "int"),
        *target_columns(found),
        *(Column(name, name) for name in found.indicators),
    ]
    every = Table.of("every_mixture", "Every mixture and its mean indicators", names, ordered, True)
    figure = Figure(
        "mixture_losses",
        f"{target.noun.capitalize()} of each mixture",
        f"{what.capitalize()} of {len(ordered)} finetuned models in rising order{with_base}.",
        f"{OWN if own else DRAWN}; {target.direction} is better. The spread of the dots is all "
        "that the rule can explain. Part of it is chance"
        f"{'' if own else ': see the noise floor below'}.",
        chart,
        data=every,
    )
    blocks: list[Block] = [Facts(tuple(facts)), *measured_on(table), *_confounded(ordered), figure]
    return Section(KEY, title, tuple(blocks))
