"""The validation: selections finetuned on, against random ones, and what could have been seen."""

from dataclasses import replace
from typing import Literal

import pandas as pd

from im_assets.common.formatting import between, plain, shown
from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_in_profile, not_made, of_earlier_rule
from im_assets.reporting.sections.columns import measured_on, target_columns
from im_assets.rule.target import PAPER, Target
from im_assets.validation.figures import decile_figure, verdict_figure
from im_assets.validation.registering import Outcome

KEY, TITLE = "validation", "Is the selection better than chance?"


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
        *(Text(verdict_sentence(row, found.target), "answer") for _, row in verdicts.iterrows()
          if row["verdict"] != "baseline"),
        *measured_on(verdicts),
        *_registration(found),
        _losses(found, verdicts),
        _verdicts(found, verdicts),
        *_second(found),
        *_noise(found),
        *_deciles(found),
    ]  # fmt: skip
    return Section(KEY, TITLE, tuple(blocks))


# What a strategy is compared with, in words.
AGAINST = {
    "random": "random subsets",
    "tokens": "random subsets of as many tokens",
    "full_pool": "the full pool",
    "base": "the base without finetuning",
}


def _registration(found: Gathered) -> list[Block]:
    """Whether what is printed is what was registered before the losses were known."""
    known = found.registration
    if known is None:
        return []
    facts = (
        Fact("registration", "registered", _REGISTERED[known.outcome], "text"),
        Fact("registered_at", "on", known.registered_at or None, "text"),
        Fact("analysis_id", "hash of the analysis", known.analysis_id or None, "text"),
        Fact("losses_there", "of its losses were there", known.there, "int"),
        Fact("losses", "losses reported", known.losses, "int"),
    )
    role: Literal["note", "warning"] = "note" if known.outcome == "before" else "warning"
    return [Text(known.words, role), Facts(facts)]


_REGISTERED: dict[Outcome, str] = {
    "before": "before its losses",
    "late": "after some losses",
    "changed": "another analysis",
    "other_settings": "not comparable",
    "never": "never",
}


def verdict_sentence(row: pd.Series, target: Target) -> str:
    """One arm's result in words: as plain for a null result as for a win."""
    difference, units = plain(row["difference"]), plain(row["noise_units"])
    other = AGAINST.get(str(row["against"]), str(row["against"]))
    words = {"better": f"better than {other}", "worse": f"worse than {other}"}
    verdict = words.get(str(row["verdict"]), f"not distinguishable from {other}")
    size, value = shown(row["size"], "int"), shown(row[target.measure], "loss")
    beginning = (
        f"With {size} examples that {row['strategy']!r} selects from one of {row['finetunes']} "
        f"parts of the pool, the {target.measure_label} is {value} on average"
    )
    if difference is None:
        return f"{beginning}: {verdict}."
    side = "below" if difference < 0 else "above"
    noise = (
        "" if units is None
        else f", {shown(abs(units), 'two')} times the spread of single random finetunes"
    )  # fmt: skip
    interval = between(row["difference_low"], row["difference_high"], "signed")
    holds = (
        f"The difference's interval for new subsets, finetunes and instructions is {interval}"
        if plain(row["difference_low"]) is not None
        else "There are too few instructions for an interval"
    )
    return (
        f"{beginning}, {shown(abs(difference), 'loss')} {side} that of {other}{noise}. "
        f"{holds}: {verdict}."
        f"{seen_sentence(row)}"
    )


def seen_sentence(row: pd.Series) -> str:
    """What the table could not have seen, with a blank before it; '' where that is not known."""
    smallest = plain(row["detectable"])
    if smallest is None:
        return ""
    return (
        f" A true difference of {shown(smallest, 'loss')} would have been called in four of five "
        "such tables, a smaller one less often."
    )


def _losses(found: Gathered, verdicts: pd.DataFrame) -> Figure:
    runs, target = found.get("validation_runs"), found.target
    data = None
    if runs is not None:
        columns = (
            Column("kind", "Finetuned for", "text"),
            Column("strategy", "Strategy", "text"),
            Column("size", "Examples", "int"),
            Column("seed", "Seed", "text"),
            _measure(found),
        )
        data = Table.of("validation_runs", "Every finetune", columns, runs, True)
    return Figure(
        "validation",
        f"{target.measure_label.capitalize()} of each strategy",
        f"{target.noun.capitalize()} of models finetuned on each strategy's selection, with "
        "intervals.",
        f"One row a strategy; further {target.better_side} is better. The dot is the mean over "
        "finetunes (small strokes), the line its interval on these instructions. The grey band is "
        "that of the mean of random selections of the same size. A verdict rests on the interval "
        "of the difference, which holds for new instructions too and is in the table.",
        verdict_figure(verdicts, runs, target),
        data=data,
    )


def _verdicts(found: Gathered, verdicts: pd.DataFrame) -> Table:
    measure, unit = found.target.measure, _unit(found)
    columns = (
        Column("strategy", "Strategy", "text"),
        Column("size", "Examples", "int"),
        Column("against", "Against", "text"),
        Column("finetunes", "Finetunes", "int"),
        _measure(found),
        Column(f"{measure}_low", "from", "loss", unit),
        Column(f"{measure}_high", "to", "loss", unit),
        Column("difference", "Difference", "signed", unit),
        Column("difference_low", "from", "signed", unit),
        Column("difference_high", "to", "signed", unit),
        Column("finetune_sd", "Its error from finetunes", "loss", unit),
        Column("instruction_sd", "from instructions", "loss", unit),
        Column("detectable", "Could have been seen", "loss", unit),
        Column("noise_units", "In spreads of random", "two"),
        Column("verdict", "Verdict", "text"),
    )
    return Table.of("verdicts", "Verdicts", columns, verdicts)


def _second(found: Gathered) -> list[Block]:
    """The same finetunes on the second evaluation set, beside the first."""
    if found.study.data.second_evaluation is None:
        return []
    second, first = found.get("second_validation"), found.get("selection_validation")
    if second is None or first is None:
        text = "Nothing was measured on the second evaluation set: materialize second_validation."
        return [Text(text, "absent")]
    count = shown(second["instructions"].iloc[0], "int")
    said = [
        f"On the {count} instructions of the second evaluation set, of another kind: "
        f"{verdict_sentence(row, PAPER)}"
        for _, row in second.iterrows()
        if row["verdict"] != "baseline"
    ]
    same = ["strategy", "size", "against"]
    ends = ["difference", "difference_low", "difference_high", "verdict"]
    both = second.merge(first[[*same, *ends]], on=same, suffixes=("", "_first"))
    unit = "nats per token"
    columns = (
        Column("strategy", "Strategy", "text"),
        Column("size", "Examples", "int"),
        Column("against", "Compared with", "text"),
        Column("loss", "Loss on the second set", "loss", unit),
        Column("difference", "Against random", "signed", unit),
        Column("difference_low", "from", "signed", unit),
        Column("difference_high", "to", "signed", unit),
        Column("verdict", "Verdict", "text"),
        Column("difference_first", "On the first set", "signed", _unit(found)),
        Column("difference_low_first", "from", "signed", _unit(found)),
        Column("difference_high_first", "to", "signed", _unit(found)),
        Column("verdict_first", "Verdict there", "text"),
    )
    return [
        *of_earlier_rule(found, "second_validation"),
        *(Text(sentence, "answer") for sentence in said),
        Table.of("second_verdicts", "Verdicts on both evaluation sets", columns, both),
    ]


PLACES = {
    "centre": "the centre (random)",
    "selection": "the selection",
    "worst": "worst by the rule",
}


def _noise(found: Gathered) -> list[Block]:
    noise = found.get("noise_floor")
    if noise is None:
        return [Text("The noise floor has not been measured: materialize noise_floor.", "absent")]
    target, several = found.target, noise["measure"].nunique() > 1
    # Several measures have a unit each, which the heading cannot name.
    unit = "" if several else _unit(found)
    columns = (
        *((Column("measure", "Measure", "text"),) if several else ()),
        Column("source", "What differs", "text"),
        Column("where", "Where", "text"),
        Column("size", "Examples", "int"),
        Column("finetunes", "Finetunes", "int"),
        Column("mean", "Mean" if several else f"Mean {target.measure_label}", "loss", unit),
        Column("sd", "Standard deviation", "loss", unit),
        Column("sd_low", "from", "loss", unit),
        Column("sd_high", "to", "loss", unit),
        Column("signal_to_noise", "Signal to noise", "two"),
        Column("signal_to_noise_low", "from", "two"),
        Column("signal_to_noise_high", "to", "two"),
    )
    text = (
        f"The noise floor: how far two {target.plural} differ when nothing that matters does. "
        "Measured by finetuning with other seeds on one random subset, on the selection and on "
        "what the rule ranks worst, and on other random subsets. The last row of each size is the "
        "signal: how far the strategies' means lie apart beyond their finetunes' noise, and how "
        "many times that noise it is."
    )
    table = noise.assign(where=noise["place"].map(PLACES))
    return [Text(text), Table.of("noise_floor", "Noise floor", columns, table)]


def _deciles(found: Gathered) -> list[Block]:
    deciles, settings = found.get("rule_deciles"), found.study.validation
    if deciles is None or settings is None or settings.deciles == 0:
        return []
    first, target = deciles.iloc[0], found.target
    columns = (
        Column("decile", "Slice", "int"),
        Column("predicted", "Mean rule value"),
        *(replace(c, unit=_unit(found)) if c.unit else c for c in target_columns(found)),
        Column("spearman", "Spearman of all", "two"),
        Column("spearman_low", "from", "two"),
        Column("spearman_high", "to", "two"),
    )
    known = plain(first["spearman_low"]) is not None
    interval = between(first["spearman_low"], first["spearman_high"], "two")
    sentence = (
        "Over equal slices of the unseen pool, from the best rule value to the worst, the rank "
        f"correlation of rule and {target.measure_label} is {shown(first['spearman'], 'two')} "
        f"({interval if known else 'without an interval'}). A rule "
        "that ranks unseen data gives a value near 1; an interval around 0 leaves it open."
    )
    good = " (good by the rule)"
    left, right = (good, "") if target.direction == "lower" else ("", good)
    figure = Figure(
        "deciles",
        f"Does the {target.measure_label} follow the rule over the whole pool?",
        f"{target.title} of models finetuned on slices of the pool, against the slice's mean rule "
        "value.",
        "The pool is sorted by the rule and cut into equal slices; a model is finetuned on each. "
        f"If the rule works, the dots rise from left{left} to right{right}.",
        decile_figure(deciles, target),
        data=Table.of("deciles", "Slices of the pool", columns, deciles, True),
    )
    return [Text(sentence), figure]


def _unit(found: Gathered) -> str:
    return found.unit.replace("/", " per ")


def _measure(found: Gathered) -> Column:
    return replace(target_columns(found)[0], unit=_unit(found))
