"""The evidence as figures: one of each kind of finding, or None where there is nothing to show."""

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.points import Reference, Series, points_chart
from im_assets.common.charts.rows import Row, rows_chart
from im_assets.common.formatting import between, rows_of, shown

POOLED = "all sources together"
FITS = {"r2": "R²", "loo_r2": "R², mixtures left out"}
CHOICES = {"d_optimal": "chosen for information", "random": "random"}


def _section(findings: pd.DataFrame, name: str) -> pd.DataFrame:
    return findings[findings["section"] == name]


def learning_curve_figure(findings: pd.DataFrame) -> Chart | None:
    """Spearman on unseen mixtures against the number of mixtures that the rule was fitted on."""
    rows = _section(findings, "learning_curve")
    rows = rows[rows["item"] != "verdict"].dropna(subset=["x", "value"]).sort_values("x")
    if len(rows) < 2:
        return None
    x, y, low, high = (rows[name].astype(float).tolist() for name in ("x", "value", "low", "high"))
    known = rows[["low", "high"]].notna().all(axis=None)
    texts = [f"{shown(a, 'int')} mixtures: Spearman {shown(b, 'two')}"
             for a, b in zip(x, y, strict=True)]  # fmt: skip
    return points_chart(
        [
            Series(
                "", x, y, texts, line="solid", low=low if known else (), high=high if known else ()
            )
        ],
        "mixtures used",
        "Spearman on the other mixtures",
        "Would more mixtures help?",
        x_scale="whole",
    )


def inclusion_figure(findings: pd.DataFrame) -> Chart | None:
    """How often each indicator is chosen when the mixtures are resampled, with its interval."""
    rows = _section(findings, "inclusion").sort_values("value", ascending=False, kind="stable")
    if rows.empty:
        return None
    drawn = [
        Row(r.item, r.value, r.low, r.high,
            f"{r.item}: {shown(r.value)} ({between(r.low, r.high)})",
            0 if r.verdict == "in_rule" else 2)
        for r in rows_of(rows)
    ]  # fmt: skip
    title = "How often each indicator is chosen (blue: in the rule)"
    return rows_chart(drawn, "share of resamples", title, kind="bar")


def permutation_figure(findings: pd.DataFrame, values: str = "losses") -> Chart | None:
    """The observed fit, and as a line what shuffled ``values`` reach, for R² and left-out R²."""
    rows = _section(findings, "permutation")
    if rows.empty:
        return None
    drawn = [
        Row(FITS.get(r.item, r.item), r.value, r.low, r.high,
            f"{FITS.get(r.item, r.item)}: {shown(r.value, 'two')} here, "
            f"{between(r.low, r.high, 'two')} with shuffled {values}", 1)
        for r in rows_of(rows)
    ]  # fmt: skip
    p = next((r.p for r in rows_of(rows) if r.item == "loo_r2"), None)
    title = f"Does chance alone fit as well? (p = {shown(p, 'p')})"
    return rows_chart(drawn, f"dot: this study · line: shuffled {values}, 5 to 95 %", title)


def left_out_figure(findings: pd.DataFrame, what: str = "loss") -> Chart | None:
    """Rank correlation on mixtures of a source that the rule was fitted without."""
    rows = _section(findings, "leave_one_source_out")
    if rows.empty:
        return None
    drawn = [
        Row(name, r.value, r.low, r.high,
            f"{name}: {shown(r.value, 'two')}, {shown(r.x, 'int')} mixtures",
            1 if r.item == "all" else 0)
        for r in sorted(rows_of(rows), key=lambda r: r.item == "all")
        for name in [POOLED if r.item == "all" else r.item]
    ]  # fmt: skip
    label = f"Spearman of predicted and actual {what}"
    return rows_chart(drawn, label, "Ranking without a source", zero=True)


def design_figure(findings: pd.DataFrame) -> Chart | None:
    """Rules from mixtures chosen for what they tell against rules from as many random ones."""
    rows = _section(findings, "design").dropna(subset=["x", "value"]).sort_values("x")
    series = []
    for item, name in CHOICES.items():
        part = rows_of(rows[rows["item"] == item])
        texts = [f"{shown(r.x, 'int')}: {shown(r.value)}" for r in part]
        x, y = [r.x for r in part], [r.value for r in part]
        series.append(Series(name, x, y, texts, 0 if item == "d_optimal" else 1, line="solid"))
    if not any(len(s.x) for s in series):
        return None
    title = "Choosing mixtures for what they tell"
    label = "Spearman on the others"
    return points_chart(series, "mixtures finetuned", label, title, x_scale="whole")


def residual_figure(findings: pd.DataFrame, target: str = "log loss") -> Chart | None:
    """What the rule leaves unexplained of each mixture, against what it predicts."""
    rows = rows_of(_section(findings, "residuals").dropna(subset=["x", "value"]))
    if not rows:
        return None
    texts = [
        f"{r.item}: residual {shown(r.value, 'signed')}, leverage {shown(r.leverage, 'two')}, "
        f"Cook's distance {shown(r.cooks_distance, 'two')}"
        for r in rows
    ]
    points = Series("", [r.x for r in rows], [r.value for r in rows], texts)
    x, y = f"fitted {target}", f"residual ({target})"
    return points_chart([points], x, y, "Residuals", [Reference(0.0)])
