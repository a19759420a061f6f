"""The mixtures and their losses, against the base model's own."""

from im_assets.experiments.evaluation import overall
from im_assets.experiments.figures import trial_losses_figure
from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made

KEY, TITLE = "mixtures", "The mixtures and their losses"
UNIT = "nats/token"


def section(found: Gathered) -> Section:
    """Every mixture's loss in order, and how far finetuning moved the base model."""
    table, base_rows = found.mixtures, found.get("base_losses")
    if table is None:
        return not_made(KEY, TITLE, "indicator_table")
    weighting = found.study.evaluation.weighting
    base = None if base_rows is None else overall(base_rows, weighting)
    ordered = table.sort_values(["loss", "partition"], ignore_index=True)
    losses = ordered["loss"]
    facts = [
        Fact("mixtures", "mixtures", len(ordered), "int"),
        Fact("size", "examples in each", int(ordered["n_examples"].max()), "int"),
        Fact("lowest", "lowest loss", losses.min(), "loss", UNIT),
        Fact("highest", "highest loss", losses.max(), "loss", UNIT),
    ]
    if len(ordered) > 1:
        facts.append(Fact("sd", "standard deviation", losses.std(ddof=1), "loss", UNIT))
    if base is not None:
        better = int((losses < base).sum())
        facts += [
            Fact("base", "base model, not finetuned", base, "loss", UNIT),
            Fact("better_than_base", "mixtures below the base model", better, "int"),
        ]
    chart = trial_losses_figure(ordered, base)
    names = [
        Column("partition", "Mixture", "text"),
        Column("n_examples", "Examples", "int"),
        Column("loss", "Loss", "loss", UNIT),
        Column("log_loss", "Log loss", "loss"),
        *(Column(name, name) for name in found.indicators),
    ]
    every = Table.of("every_mixture", "Every mixture and its mean indicators", names, ordered, True)
    figure = Figure(
        "mixture_losses",
        "Evaluation loss of each mixture",
        f"Loss of {len(ordered)} finetuned models in rising order, with the base model's loss.",
        "Each dot is one model, finetuned on one random mixture and measured on the same "
        "evaluation set; lower is better. The spread of the dots is all that the rule can "
        "explain. Part of it is chance: see the noise floor below.",
        chart,
        data=every,
    )
    blocks: list[Block] = [Facts(tuple(facts)), figure]
    return Section(KEY, TITLE, tuple(blocks))
