"""Whether to believe the rule: resampling, shuffling, leaving out, diagnostics, learning curve."""

import pandas as pd

from im_assets.reporting.blocks import Block, Column, Figure, Section, Table, Text
from im_assets.reporting.charts import Line, Point, Series, XYChart
from im_assets.reporting.gather import Gathered
from im_assets.reporting.numbers import between, plain, rows_of, shown
from im_assets.reporting.row_chart import Row, RowChart
from im_assets.reporting.sections.absent import not_made, of_earlier_rule

KEY, TITLE = "evidence", "Can the rule be believed?"

NAMES = {
    "r2": "R²",
    "loo_r2": "R², mixtures left out",
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
    blocks: list[Block] = [*of_earlier_rule(found, "rule_evidence")]
    for name, make in (
        ("permutation", _permutation),
        ("inclusion", _inclusion),
        ("coefficient", _resampled),
        ("leave_one_source_out", _left_out),
        ("leave_one_experiment_out", _experiments_left_out),
        ("learning_curve", _learning_curve),
        ("design", _design),
        ("vif", _inflation),
        ("diagnostics", _diagnostics),
        ("residuals", _residuals),
    ):
        rows = found.evidence(name)
        if len(rows):
            blocks += make(rows)
    return Section(KEY, TITLE, tuple(blocks))


def _permutation(rows: pd.DataFrame) -> list[Block]:
    row = next((r for r in rows_of(rows) if r.item == "r2"), None)
    if row is None:
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
            "With the losses shuffled, so that no indicator means anything, the best rule still "
            f"reaches an R² of {between(row.low, row.high, 'two')}; this study's has "
            f"{shown(row.value, 'two')} (p = {shown(row.p, 'p')}). {end}"
        ),
        Table.of("permutation", "Against shuffled losses", columns, named),
    ]


def _rows(rows: pd.DataFrame) -> tuple[Row, ...]:
    return tuple(
        Row(str(r.item), plain(r.value), plain(r.low), plain(r.high),
            f"{r.item}: {shown(r.value)} ({between(r.low, r.high)})")
        for r in rows_of(rows)
    )  # fmt: skip


def _inclusion(rows: pd.DataFrame) -> list[Block]:
    ordered = rows.sort_values("value", ascending=False, kind="stable")
    return [
        Figure(
            "inclusion",
            "How often each indicator is chosen",
            "Share of bootstrap resamples in which each indicator enters the rule.",
            "The mixtures are drawn again with replacement, and the rule is chosen anew each time. "
            "An indicator chosen nearly always is well founded; one chosen about half the time "
            "could as well be another.",
            (RowChart("share of resamples", _rows(ordered), kind="bar"),),
        )
    ]


def _resampled(rows: pd.DataFrame) -> list[Block]:
    columns = (
        Column("item", "Term", "text"),
        Column("value", "Estimate"),
        Column("low", "Bootstrap interval from"),
        Column("high", "to"),
        Column("same_sign", "Resamples of the same sign", "percent"),
    )
    caption = "Coefficients over the resamples, the choice of indicators redone"
    return [Table.of("resampled_coefficients", caption, columns, rows)]


def _left_out(rows: pd.DataFrame) -> list[Block]:
    pooled = rows["item"] == "all"
    named = rows.assign(item=rows["item"].where(~pooled, "all sources together"))
    named = pd.concat([named[~pooled], named[pooled]])
    drawn = tuple(
        Row(str(r.item), plain(r.value), plain(r.low), plain(r.high),
            f"{r.item}: {shown(r.value, 'two')}, {shown(r.x, 'int')} mixtures",
            look=1 if r.item == "all sources together" else 0)
        for r in rows_of(named)
    )  # fmt: skip
    return [
        Figure(
            "leave_one_source_out",
            "Ranking without a source",
            "Rank correlation on mixtures dominated by a source that the rule was not fitted on.",
            "Mixtures of the same few sources are not independent. Here the mixtures in which one "
            "source weighs most are predicted by a rule that never saw them. 1 is a perfect "
            "ranking, 0 is guessing, below 0 is worse than guessing.",
            (RowChart("Spearman of predicted and actual loss", drawn, zero=True),),
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
    if len(curve) > 1:
        known = curve["low"].notna().all() and curve["high"].notna().all()
        x, y, low, high = (tuple(curve[c].astype(float)) for c in ("x", "value", "low", "high"))
        line = Line("", x, y, low if known else (), high if known else ())
        points = tuple(
            Point(a, b, f"{shown(a, 'int')} mixtures: Spearman {shown(b, 'two')}")
            for a, b in zip(x, y, strict=True)
        )
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
                "The rule is fitted on some of the mixtures and ranks the others. While the line "
                "still rises, more mixtures help; where it is flat, they do not. The band is the "
                "spread over random divisions.",
                (
                    XYChart(
                        "mixtures used",
                        "Spearman on the other mixtures",
                        (Series("", points),),
                        (line,),
                        whole_x=True,
                    ),
                ),
                data=Table.of("learning_curve_rows", "Learning curve", columns, curve, True),
            )
        )
    return blocks


def _design(rows: pd.DataFrame) -> list[Block]:
    names = {"d_optimal": "chosen for information", "random": "random"}
    known = rows.dropna(subset=["x", "value"])
    series = tuple(
        Series(
            names.get(str(item), str(item)),
            tuple(
                Point(float(r.x), float(r.value), f"{shown(r.x, 'int')}: {shown(r.value)}")
                for r in rows_of(part.sort_values("x"))
            ),
            0 if item == "d_optimal" else 1,
        )
        for item, part in known.groupby("item")
        if str(item) in names
    )
    lines = tuple(
        Line(s.name, tuple(p.x for p in s.points), tuple(p.y for p in s.points), look=s.look)
        for s in series
    )
    told = rows.dropna(subset=["verdict"]).sort_values("x")
    # The fewest that are clearly better than random say most; if none are, the most mixtures do.
    gains = list(told.loc[told["verdict"] == "better", "note"])
    notes = [Text(f"{note}.") for note in gains[:1] or list(told["note"])[-1:]]
    if not series:
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
            (XYChart("mixtures finetuned", "Spearman on the others", series, lines, whole_x=True),),
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


def _residuals(rows: pd.DataFrame) -> list[Block]:
    points = tuple(
        Point(float(r.x), float(r.value), f"{r.item}: residual {shown(r.value, 'signed')}, "
              f"leverage {shown(r.leverage, 'two')}, "
              f"Cook's distance {shown(r.cooks_distance, 'two')}")
        for r in rows_of(rows.dropna(subset=["x", "value"]))
    )  # fmt: skip
    columns = (
        Column("item", "Mixture", "text"),
        Column("x", "Fitted log loss", "loss"),
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
            (
                XYChart(
                    "fitted log loss",
                    "residual (log loss)",
                    (Series("", points),),
                    references=((0.0, ""),),
                ),
            ),
            data=Table.of("residual_rows", "Every mixture's residual", columns, rows, True),
        )
    ]
