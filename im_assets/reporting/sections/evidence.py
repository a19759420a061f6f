"""Whether to believe the rule: resampling, shuffling, leaving out, diagnostics, learning curve."""

from functools import partial

import pandas as pd

from im_assets.common.formatting import between, rows_of, shown
from im_assets.evidence.figures import (
    FITS,
    POOLED,
    decision_figure,
    design_figure,
    inclusion_figure,
    learning_curve_figure,
    left_out_figure,
    permutation_figure,
    residual_figure,
)
from im_assets.reporting.blocks import Block, Column, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made, of_earlier_rule

KEY, TITLE = "evidence", "Can the rule be believed?"

NAMES = {
    **FITS,
    "breusch_pagan": "Breusch–Pagan",
    "shapiro_wilk": "Shapiro–Wilk",
    "max_leverage": "largest leverage",
    "max_cooks_distance": "largest Cook's distance",
}
PUBLISHED = "The rule is a published one: evidence can only be given for a rule fitted here."


def section(found: Gathered) -> Section:
    """Every part of rule_evidence that is there."""
    if found.study.rule.source != "fitted":
        return Section(KEY, TITLE, (Text(PUBLISHED, "absent"),))
    if found.get("rule_evidence") is None:
        return not_made(KEY, TITLE, "rule_evidence")
    target = found.target
    blocks: list[Block] = [*of_earlier_rule(found, "rule_evidence")]
    named = found.evidence
    blocks_of_decisions = _decisions(
        named("decision_accuracy"), named("decision_accuracy_beyond_noise"), named("regret"),
        named("optimism"), target.label,
    )  # fmt: skip
    for name, make in (
        ("permutation", partial(_permutation, values=target.plural)),
        ("shape", partial(_shapes, label=target.label)),
        ("inclusion", _inclusion),
        ("coefficient", _resampled),
        ("leave_one_source_out", partial(_left_out, what=target.measure_label)),
        ("leave_one_experiment_out", _experiments_left_out),
        ("learning_curve", _learning_curve),
        ("design", _design),
        ("vif", _inflation),
        ("diagnostics", _diagnostics),
        ("residuals", partial(_residuals, label=target.label)),
    ):
        rows = found.evidence(name)
        if len(rows):
            blocks += make(rows)
        if name == "learning_curve":
            blocks += blocks_of_decisions
    return Section(KEY, TITLE, tuple(blocks))


def _permutation(rows: pd.DataFrame, values: str) -> list[Block]:
    row = next((r for r in rows_of(rows) if r.item == "loo_r2"), None)
    chart = permutation_figure(rows, values)
    if row is None or chart is None:
        return []
    end = {
        "chance": "The fit is what chance alone gives.",
        "beyond_chance": "Chance alone rarely fits so well.",
    }[row.verdict]
    columns = (
        Column("item", "Fit", "text"),
        Column("value", "This study", "two"),
        Column("low", "Shuffled, 5\u00a0% point", "two"),
        Column("high", "95\u00a0% point", "two"),
        Column("p", "p", "p"),
    )
    named = rows.assign(item=rows["item"].replace(NAMES))
    return [
        Text(
            f"With the {values} shuffled, so that no indicator means anything, the best rule still "
            f"reaches, on mixtures left out, an R² of {between(row.low, row.high, 'two')}; this "
            f"study's has {shown(row.value, 'two')} (p = {shown(row.p, 'p')}). {end}"
        ),
        Figure(
            "permutation",
            f"Against shuffled {values}",
            f"Fit of the rule, and what the best rule reaches when the {values} are shuffled.",
            f"The dot is the rule's fit, the line what the best rule reaches on shuffled {values}. "
            "A dot inside its line is a fit that chance gives as well.",
            chart,
            data=Table.of("permutation", f"Against shuffled {values}", columns, named, True),
        ),
    ]


def _shapes(rows: pd.DataFrame, label: str) -> list[Block]:
    columns = (
        Column("item", "Shape", "text"),
        Column("value", "Error, mixtures left out", "loss"),
        Column("gain", "Squared error less than the line's"),
        Column("gain_low", "less one standard error"),
        Column("gain_high", "and one more"),
        Column("x", "Chosen in resamples", "percent"),
    )
    named = rows.assign(item=rows["item"].str.replace("_", " "))
    taken = named.loc[named["verdict"] == "chosen", "item"]
    if taken.empty:
        return []
    words = (
        f"Of {len(rows)} shapes that the rule could have, {taken.iloc[0]} is the simplest whose "
        f"error in {label}, on mixtures left out by folds, is within one standard error of the "
        "least."
    )
    return [Text(words), Table.of("shapes", "Shapes of the rule, simplest first", columns, named)]


def _inclusion(rows: pd.DataFrame) -> list[Block]:
    chart = inclusion_figure(rows)
    if chart is None:
        return []
    return [
        Figure(
            "inclusion",
            "How often each indicator is chosen",
            "Share of bootstrap resamples in which each indicator enters the rule.",
            "The mixtures are drawn again with replacement, and the rule is chosen anew each time. "
            "An indicator chosen nearly always is well founded; one chosen about half the time "
            "could as well be another. Those in the rule are blue.",
            chart,
        )
    ]


def _resampled(rows: pd.DataFrame) -> list[Block]:
    columns = (
        Column("item", "Term", "text"),
        Column("value", "Estimate"),
        Column("low", "Bootstrap interval from"),
        Column("high", "to"),
        Column("same_sign", "Of the same sign", "percent"),
    )
    caption = "Coefficients over the resamples that choose the indicator"
    return [Table.of("resampled_coefficients", caption, columns, rows)]


def _left_out(rows: pd.DataFrame, what: str) -> list[Block]:
    pooled = rows["item"] == "all"
    named = rows.assign(item=rows["item"].where(~pooled, POOLED))
    named = pd.concat([named[~pooled], named[pooled]])
    chart = left_out_figure(rows, what)
    if chart is None:
        return []
    return [
        Figure(
            "leave_one_source_out",
            "Ranking without a source",
            "Rank correlation on mixtures dominated by a source that the rule was not fitted on.",
            "Mixtures of the same few sources are not independent. Here the mixtures in which one "
            "source weighs most are predicted by a rule that never saw them. 1 is a perfect "
            "ranking, 0 is guessing, below 0 is worse than guessing.",
            chart,
            data=Table.of(
                "leave_one_source_out_rows",
                "Left-out sources",
                (
                    Column("item", "Source left out", "text"),
                    Column("x", "Mixtures", "int"),
                    Column("value", "Spearman", "two"),
                    Column("low", "interval from", "two"),
                    Column("high", "to", "two"),
                ),
                named,
                True,
            ),
        )
    ]


def _experiments_left_out(rows: pd.DataFrame) -> list[Block]:
    named = rows.assign(item=rows["item"].mask(rows["item"] == "all", "all experiments together"))
    columns = (
        Column("item", "Experiment left out", "text"),
        Column("x", "Points", "int"),
        Column("value", "Spearman", "two"),
        Column("low", "interval from", "two"),
        Column("high", "to", "two"),
        Column("note", "In words", "text"),
    )
    caption = "Ranking of an experiment's points by a rule of the other experiments"
    return [Table.of("leave_one_experiment_out", caption, columns, named)]


def _learning_curve(rows: pd.DataFrame) -> list[Block]:
    verdicts = rows[rows["item"] == "verdict"]
    curve = rows[rows["item"] != "verdict"].dropna(subset=["x", "value"]).sort_values("x")
    blocks: list[Block] = [
        Text(f"Do I need more mixtures? {note}", "answer") for note in verdicts["note"].dropna()
    ]
    if (chart := learning_curve_figure(rows)) is not None:
        columns = (
            Column("x", "Mixtures", "int"),
            Column("value", "Spearman", "two"),
            Column("low", "band from", "two"),
            Column("high", "to", "two"),
        )
        blocks.append(
            Figure(
                "learning_curve",
                "Learning curve",
                "Rank correlation on unseen mixtures against the number of mixtures used.",
                "The rule is fitted on some of the mixtures and ranks the others. The band is the "
                "spread over random divisions. Where the line goes from here is not drawn: the "
                "answer above is from simulated studies like this one.",
                chart,
                data=Table.of("learning_curve_rows", "Learning curve", columns, curve, True),
            )
        )
    return blocks


def _decisions(
    shares: pd.DataFrame,
    beyond: pd.DataFrame,
    regrets: pd.DataFrame,
    gaps: pd.DataFrame,
    label: str,
) -> list[Block]:
    rule = next((r for r in rows_of(shares) if r.item == "rule"), None)
    lost = next((r for r in rows_of(regrets) if r.item == "rule"), None)
    chart = decision_figure(shares)
    if rule is None or lost is None or rule.value is None or chart is None:
        return []
    text = (
        f"Of two sets, the rule knows the better one in {shown(rule.value, 'percent')} of "
        f"{shown(rule.x, 'int')} pairs ({between(rule.low, rule.high, 'percent')}; the goal of "
        f"{shown(rule.goal, 'percent')} is {rule.verdict}). The set that it predicts best is "
        f"{shown(lost.value)} in {label} worse than the best measured "
        f"({between(lost.low, lost.high)}; the goal of one sd of the noise, {shown(lost.goal)}, is "
        f"{lost.verdict})."
    )
    columns = (
        Column("what", "What", "text"),
        Column("item", "By", "text"),
        Column("value", "Value"),
        Column("low", "from"),
        Column("high", "to"),
        Column("x", "Pairs", "int"),
        Column("noise_sds", "Noise sds", "two"),
        Column("goal", "Goal"),
        Column("verdict", "Verdict", "text"),
        Column("note", "In words", "text"),
    )
    parts = {
        "Pairs ordered rightly": shares,
        "Pairs that differ by more than noise": beyond,
        "Regret of taking the best predicted": regrets,
        "Error left out less error fitted": gaps,
    }
    rows = pd.concat([part.assign(what=name) for name, part in parts.items()], ignore_index=True)
    return [
        Text(text),
        Figure(
            "decisions",
            "Deciding between two sets",
            "Share of pairs of trials that the rule orders as measured, beside its rivals.",
            "Each prediction was made without the trial. One half is a coin's toss. The rivals are "
            "each indicator alone, and the paper's rules where they apply.",
            chart,
            data=Table.of(
                "decision_rows", "Decisions of the rule and its rivals", columns, rows, True
            ),
        ),
    ]


def _design(rows: pd.DataFrame) -> list[Block]:
    told = rows.dropna(subset=["verdict"]).sort_values("x")
    # The fewest that are clearly better than random say most; if none are, the most mixtures do.
    gains = list(told.loc[told["verdict"] == "better", "note"])
    notes = [Text(f"{note}.") for note in gains[:1] or list(told["note"])[-1:]]
    chart = design_figure(rows)
    if chart is None:
        return [*notes]
    columns = (
        Column("item", "Mixtures", "text"),
        Column("x", "How many", "int"),
        Column("value", "Value"),
        Column("low", "from"),
        Column("high", "to"),
        Column("note", "In words", "text"),
    )
    return [
        Figure(
            "design",
            "Choosing mixtures for what they tell",
            "Rules from chosen mixtures against rules from as many random ones.",
            "Indicators are cheap and finetunes are not, so mixtures can be chosen for their "
            "indicators before any is finetuned (D-optimal design). Where the chosen ones do as "
            "well as more random ones, the difference is what they save.",
            chart,
            data=Table.of("design_rows", "Chosen and random mixtures", columns, rows, True),
        ),
        *notes,
    ]


def _inflation(rows: pd.DataFrame) -> list[Block]:
    columns = [Column("item", "Indicator", "text"), Column("value", "VIF", "two")]
    if rows["note"].fillna("").any():
        columns.append(Column("note", "Note", "text"))
    caption = "Collinearity: variance inflation of each indicator (above 10 is severe)"
    return [Table.of("vif", caption, columns, rows)]


def _diagnostics(rows: pd.DataFrame) -> list[Block]:
    columns = (
        Column("item", "Test", "text"),
        Column("value", "Statistic"),
        Column("p", "p", "p"),
        Column("note", "Meaning", "text"),
    )
    named = rows.assign(item=rows["item"].replace(NAMES))
    return [Table.of("diagnostics", "Tests of the residuals", columns, named)]


def _residuals(rows: pd.DataFrame, label: str) -> list[Block]:
    chart = residual_figure(rows, label)
    if chart is None:
        return []
    columns = (
        Column("item", "Mixture", "text"),
        Column("x", f"Fitted {label}", "loss"),
        Column("value", "Residual", "signed"),
        Column("leverage", "Leverage", "two"),
        Column("cooks_distance", "Cook's distance", "two"),
    )
    return [
        Figure(
            "residuals",
            "Residuals",
            "What the rule leaves unexplained, against what it predicts.",
            "A good rule leaves a cloud without shape around zero. A funnel means that the errors "
            "grow; a curve means that a straight line is the wrong form; a dot far out may alone "
            "decide the rule.",
            chart,
            data=Table.of("residual_rows", "Every mixture's residual", columns, rows, True),
        )
    ]
