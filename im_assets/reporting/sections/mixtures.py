"""The mixtures and their losses, against the base model's own."""

from im_assets.experiments.figures import trial_values_figure
from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made
from im_assets.reporting.sections.columns import measured_on, target_columns

KEY, TITLE = "mixtures", "The mixtures and their {}"


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
        Fact("size", "examples in each", int(ordered["n_examples"].max()), "int"),
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
        f"{what.capitalize()} of {len(ordered)} finetuned models in rising order, with the base "
        f"model's {what}.",
        "Each dot is one model, finetuned on one random mixture and measured on the same "
        f"evaluation set; {target.direction} is better. The spread of the dots is all that the "
        "rule can explain. Part of it is chance: see the noise floor below.",
        chart,
        data=every,
    )
    blocks: list[Block] = [Facts(tuple(facts)), *measured_on(table), figure]
    return Section(KEY, title, tuple(blocks))
