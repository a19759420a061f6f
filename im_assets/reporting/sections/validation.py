"""The validation: selections finetuned on, against random ones, in units of the noise floor."""

import pandas as pd

from im_assets.common.formatting import between, plain, shown
from im_assets.reporting.blocks import Block, Column, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_in_profile, not_made, of_earlier_rule
from im_assets.validation.figures import decile_figure, verdict_figure

KEY, TITLE = "validation", "Is the selection better than chance?"
UNIT = "nats per token"


def section(found: Gathered) -> Section:
    """Noise floor, verdicts, deciles."""
    if found.study.validation is None:
        what = "the selection was not checked by finetuning."
        return not_in_profile(KEY, TITLE, "validation", what)
    verdicts = found.get("selection_validation")
    if verdicts is None:
        return not_made(KEY, TITLE, "selection_validation")
    blocks: list[Block] = [
        *of_earlier_rule(found, "selection_validation", "rule_deciles"),
        *(Text(verdict_sentence(row), "answer") for _, row in verdicts.iterrows()
          if row["verdict"] != "baseline"),
        _losses(found, verdicts),
        _verdicts(verdicts),
        *_noise(found),
        *_deciles(found),
    ]  # fmt: skip
    return Section(KEY, TITLE, tuple(blocks))


def verdict_sentence(row: pd.Series) -> str:
    """One arm's result in words: as plain for a null result as for a win."""
    difference, units = plain(row["difference"]), plain(row["noise_units"])
    words = {"better": "better than random", "worse": "worse than random"}
    verdict = words.get(str(row["verdict"]), "not distinguishable from random")
    size, loss = shown(row["size"], "int"), shown(row["loss"], "loss")
    beginning = f"With the {size} examples that {row['strategy']!r} selects, the loss is {loss}"
    if difference is None:
        return f"{beginning}: {verdict}."
    side = "below" if difference < 0 else "above"
    noise = "" if units is None else f" ({shown(abs(units), 'two')} times the noise floor)"
    return f"{beginning}, {shown(abs(difference), 'loss')} {side} random's{noise}: {verdict}."


def _losses(found: Gathered, verdicts: pd.DataFrame) -> Figure:
    runs = found.get("validation_runs")
    data = None
    if runs is not None:
        columns = (
            Column("kind", "Finetuned for", "text"),
            Column("strategy", "Strategy", "text"),
            Column("size", "Examples", "int"),
            Column("seed", "Seed", "text"),
            Column("loss", "Loss", "loss", UNIT),
        )
        data = Table.of("validation_runs", "Every finetune", columns, runs, True)
    return Figure(
        "validation",
        "Loss of each strategy",
        "Evaluation loss of models finetuned on each strategy's selection, with intervals.",
        "One row a strategy; further left is better. The dot is the mean over finetunes (small "
        "strokes), the line its interval. The grey band is the interval of the mean of random "
        "selections of the same size. A verdict rests on the interval of the difference, which is "
        "in the table.",
        verdict_figure(verdicts, runs),
        data=data,
    )


def _verdicts(verdicts: pd.DataFrame) -> Table:
    columns = (
        Column("strategy", "Strategy", "text"),
        Column("size", "Examples", "int"),
        Column("finetunes", "Finetunes", "int"),
        Column("loss", "Loss", "loss", UNIT),
        Column("loss_low", "from", "loss", UNIT),
        Column("loss_high", "to", "loss", UNIT),
        Column("difference", "Against random", "signed", UNIT),
        Column("difference_low", "from", "signed", UNIT),
        Column("difference_high", "to", "signed", UNIT),
        Column("noise_units", "In noise floors", "two"),
        Column("p", "p", "p"),
        Column("verdict", "Verdict", "text"),
    )
    return Table.of("verdicts", "Verdicts", columns, verdicts)


def _noise(found: Gathered) -> list[Block]:
    noise = found.get("noise_floor")
    if noise is None:
        return [Text("The noise floor has not been measured: materialize noise_floor.", "absent")]
    columns = (
        Column("source", "Source of noise", "text"),
        Column("size", "Examples", "int"),
        Column("finetunes", "Finetunes", "int"),
        Column("mean", "Mean loss", "loss", UNIT),
        Column("sd", "Standard deviation", "loss", UNIT),
        Column("sd_low", "from", "loss", UNIT),
        Column("sd_high", "to", "loss", UNIT),
    )
    text = (
        "The noise floor: how far two losses differ when nothing that matters does. Measured by "
        "finetuning on the same examples with other seeds, and on other random subsets."
    )
    return [Text(text), Table.of("noise_floor", "Noise floor", columns, noise)]


def _deciles(found: Gathered) -> list[Block]:
    deciles, settings = found.get("rule_deciles"), found.study.validation
    if deciles is None or settings is None or settings.deciles == 0:
        return []
    first = deciles.iloc[0]
    columns = (
        Column("decile", "Slice", "int"),
        Column("predicted", "Mean rule value"),
        Column("loss", "Loss", "loss", UNIT),
        Column("log_loss", "Log loss", "loss"),
        Column("spearman", "Spearman of all", "two"),
        Column("spearman_low", "from", "two"),
        Column("spearman_high", "to", "two"),
    )
    known = plain(first["spearman_low"]) is not None
    interval = between(first["spearman_low"], first["spearman_high"], "two")
    sentence = (
        "Over equal slices of the unseen pool, from the best rule value to the worst, the rank "
        f"correlation of rule and loss is {shown(first['spearman'], 'two')} "
        f"({interval if known else 'without an interval'}). A rule "
        "that ranks unseen data gives a value near 1; an interval around 0 leaves it open."
    )
    figure = Figure(
        "deciles",
        "Does the loss follow the rule over the whole pool?",
        "Log loss of models finetuned on slices of the pool, against the slice's mean rule value.",
        "The pool is sorted by the rule and cut into equal slices; a model is finetuned on each. "
        "If the rule works, the dots rise from left (good by the rule) to right.",
        decile_figure(deciles),
        data=Table.of("deciles", "Slices of the pool", columns, deciles, True),
    )
    return [Text(sentence), figure]
