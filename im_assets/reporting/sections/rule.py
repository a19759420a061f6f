"""The rule: formula, coefficients, fit."""

import pandas as pd

from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made
from im_assets.reporting.sections.answer import against_chance, chance_p, left_out_interval
from im_assets.reporting.sections.columns import measured_on
from im_assets.rule.document import TERM_NUMBERS
from im_assets.rule.figures import (
    coefficient_figure,
    curve_figure,
    fit_figure,
    indicator_figure,
    predictions,
)
from im_assets.rule.model import CONSTANT, Rule
from im_assets.rule.transform import scaled

KEY, TITLE = "rule", "The rule"


def section(found: Gathered) -> Section:
    """The rule as the study found it, with its uncertainty and its warnings."""
    rule, table = found.rule, found.get("indicator_table")
    if rule is None or table is None:
        return not_made(KEY, TITLE, "quality_rule")
    told = [warning.note for warning in rule.warnings if warning.kind != "chance"]
    chance = [Text(by_chance(rule), "warning")] if rule.beyond_chance is False else []
    blocks: list[Block] = [
        *chance,
        Text(rule.formula.replace("-", "\u2212"), "answer"),
        Text(
            f"Source: {rule.reference}. {rule.predicts.direction.capitalize()} predicted "
            f"{rule.predicts.label} means better data.{reading(rule)}"
        ),
        *measured_on(table),
        Facts(facts_of(rule)),
        coefficients(rule, *_resampled(found)),
        *(Text(note, "warning") for note in told),
    ]
    if found.rule_of_other_points:
        words = (
            "This rule was fitted on other points than indicator_table holds now: materialize "
            "quality_rule, and what follows."
        )
        return Section(KEY, TITLE, (*blocks, Text(words, "warning")))
    if {rule.predicts.column, *rule.indicators} <= set(table.columns):
        blocks.append(_fit(rule, table))
        if len(table) > 1:
            blocks += _effects(rule, table)
        blocks += _curves(rule)
    if found.indicators and len(table) > 1 and rule.predicts.column in table:
        blocks.append(_indicators(rule, table, found.indicators))
    return Section(KEY, TITLE, tuple(blocks))


def facts_of(rule: Rule) -> tuple[Fact, ...]:
    """What is known of the rule's fit."""
    facts = (
        Fact("n", "points behind it", rule.n, "int"),
        Fact("r2", "R²", rule.r2, "two"),
        Fact("adj_r2", "adjusted R²", rule.adj_r2, "two"),
        Fact(
            "loo_spearman",
            "Spearman, mixtures left out",
            rule.loo_spearman,
            "two",
            left_out_interval(rule),
        ),
        Fact("loo_rmse", "error, mixtures left out", rule.loo_rmse, "loss", rule.predicts.label),
        Fact("chance_p", f"p against shuffled {rule.predicts.plural}", chance_p(rule), "p"),
        Fact("candidates", "indicators it could choose from", len(rule.candidates), "int"),
    )
    return facts if rule.source == "fitted" else facts[-1:]


def by_chance(rule: Rule) -> str:
    """That the rule is one of chance, in sentences."""
    said = against_chance(rule)
    return f"This rule is not beyond chance: {said}. Nothing below says what better data is."


def reading(rule: Rule) -> str:
    """On which scale the rule reads indicators, in sentences; '' where as they are."""
    scale = " log1p(v) stands for sign(v) ln(1 + |v|), of which a mixture has the mean."
    cut = " An example's indicators are cut to the range that the rule's points cover."
    return (scale if rule.transform == "log" else "") + (cut if rule.winsorize else "")


def _resampled(found: Gathered) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How often the resamples choose each indicator, and with which sign; of this rule only."""
    kinds = (found.evidence("inclusion"), found.evidence("coefficient"))
    return kinds if not any(map(found.of_earlier_rule, kinds)) else (kinds[0][:0], kinds[1][:0])


def coefficients(
    rule: Rule, inclusion: pd.DataFrame | None = None, signs: pd.DataFrame | None = None
) -> Table:
    """The table of the rule's terms.

    Args:
        inclusion, signs: of the bootstrap, where it was made. There is no p of a single term: after
            a choice by the same losses it is no test.
    """
    terms = pd.DataFrame([t.model_dump() for t in (rule.constant, *rule.terms)])
    terms = terms.reindex(columns=["name", *TERM_NUMBERS])
    terms["name"] = [CONSTANT, *(scaled(name, rule.transform) for name in rule.indicators)]
    resampled = []
    for frame, column, label in (
        (inclusion, "value", "Chosen in resamples"),
        (signs, "same_sign", "Of these, same sign"),
    ):
        if frame is not None and len(frame):
            values = frame.set_index("item")[column]
            terms[label] = [None, *(values.get(name) for name in rule.indicators)]
            resampled.append(Column(label, label, "percent"))
    covered = (Column("low", "Points from"), Column("high", "to"))
    known = any(term.low is not None for term in rule.terms)
    level = f"{rule.confidence:.0%} " if rule.confidence else ""
    columns = (
        Column("name", "Term", "text"),
        Column("estimate", "Estimate"),
        Column("std_error", "Standard error"),
        Column("ci_low", f"{level}interval from"),
        Column("ci_high", "to"),
        *resampled,
        Column("vif", "VIF", "two"),
        *(covered if known else ()),
    )
    return Table.of("coefficients", f"Coefficients: {rule.predicts.label} per unit", columns, terms)


def _fit(rule: Rule, table: pd.DataFrame) -> Figure:
    rows = predictions(rule, table)
    columns = (
        Column("partition", "Mixture", "text"),
        Column("actual", f"Actual {rule.predicts.label}", "loss"),
        Column("fitted", "Predicted", "loss"),
        Column("left_out", "Predicted without it", "loss"),
    )
    return Figure(
        "predicted_against_actual",
        "Predicted against actual",
        f"Predicted against actual {rule.predicts.label} of {len(rows)} mixtures.",
        "Each mixture is drawn twice: filled, as the rule fits it; hollow, as it is predicted by a "
        "rule that was chosen and fitted without it. On the dashed line a prediction is exact. "
        "Judge the rule by the hollow dots: if they form a flat cloud, it does not predict.",
        fit_figure(rule, table),
        data=Table.of("predictions", "Every mixture's prediction", columns, rows, True),
    )


def _curves(rule: Rule) -> list[Figure]:
    chart = curve_figure(rule)
    if chart is None:
        return []
    return [
        Figure(
            "curves",
            "What each indicator adds",
            f"What each indicator with a curve adds to the {rule.predicts.label}.",
            f"One panel an indicator, over the range of the points; {rule.predicts.direction} is "
            "better. Beyond the range the rule takes the value at its end.",
            chart,
        )
    ]


def _effects(rule: Rule, table: pd.DataFrame) -> list[Figure]:
    chart = coefficient_figure(rule, table)
    if chart is None:
        return []
    target = rule.predicts
    figure = Figure(
        "effects",
        "What each indicator does"
        if rule.beyond_chance is not False
        else "What each indicator would do, by a rule not beyond chance",
        f"Change of {target.label} per standard deviation of each indicator in the rule.",
        f"One row an indicator of the rule: the change of {target.label} when a mixture's mean "
        "rises by one standard deviation, the others held. "
        f"{target.better_side.capitalize()} of zero, more of it is better. An interval "
        "that crosses zero leaves the direction open. The intervals do not count that the "
        "indicators were chosen on the same mixtures, so they are too narrow.",
        chart,
    )
    return [figure]


def _indicators(rule: Rule, table: pd.DataFrame, names: list[str]) -> Figure:
    return Figure(
        "indicators",
        "The mixtures by each indicator",
        f"{rule.predicts.title} of the mixtures against the mean of each indicator.",
        "One panel an indicator, one dot a mixture; those in the rule are blue. ρ is the rank "
        "correlation. An indicator can slope here and not be in the rule: another one may already "
        "say the same.",
        indicator_figure(table, names, rule.indicators, rule.predicts),
    )
