"""Do least squares' assumptions hold: residuals, mixtures that weigh too much, collinearity."""

import numpy as np
import pandas as pd

from im_assets.common.numbers import finite
from im_assets.evidence.findings import Finding
from im_assets.rule.choosing import Mixtures
from im_assets.rule.fitting import HIGH_VIF
from im_assets.rule.model import Rule
from im_assets.rule.regression import independent_columns, inflation_factors, least_squares

DOUBT = 0.05


def residual_diagnostics(mixtures: Mixtures, rule: Rule) -> list[Finding]:
    """Sections ``diagnostics`` and ``residuals`` of the rule's fit on all mixtures.

    ``diagnostics`` has a statistic in ``value`` and its p in ``x``: breusch_pagan (Koenker's
    studentized form, as R's bptest), shapiro_wilk, and the largest leverage and Cook's distance.
    ``residuals`` has one row a seed: x fitted, value residual, low leverage, high Cook's distance.
    """
    from scipy.stats import shapiro
    from statsmodels.stats.diagnostic import het_breuschpagan

    x, y = mixtures.x[:, mixtures.mask(rule.indicators)], mixtures.y
    x = (x - x.mean(axis=0)) / np.linalg.norm(x - x.mean(axis=0), axis=0)  # keeps its digits
    fit = least_squares(y, x)
    with np.errstate(divide="ignore", invalid="ignore"):  # an exact fit leaves no residual
        influence = fit.get_influence()
        leverage, cook = influence.hat_matrix_diag, influence.cooks_distance[0]
    found = []
    if not rule.indicators:
        note = "the rule has no indicator that the spread of its errors could follow"
        found.append(Finding("diagnostics", "breusch_pagan", note=note))
    else:
        statistic, p, _, _ = het_breuschpagan(fit.resid, fit.model.exog)
        note = (
            "the errors' spread differs between mixtures: classical standard errors do not hold"
            if p < DOUBT
            else "no sign that the errors' spread differs between mixtures"
        )
        found.append(
            Finding("diagnostics", "breusch_pagan", finite(p), finite(statistic), note=note)
        )
    if np.ptp(fit.resid) > 0:
        statistic, p = shapiro(fit.resid)
        note = (
            "the errors are not normal: p-values and intervals of few mixtures are approximate"
            if p < DOUBT
            else "no sign that the errors are not normal"
        )
        found.append(
            Finding("diagnostics", "shapiro_wilk", finite(p), finite(statistic), note=note)
        )
    usual = (len(rule.indicators) + 1) / len(mixtures)
    far, moved = int(np.argmax(leverage)), int(np.argmax(np.nan_to_num(cook)))
    note = f"{mixtures.seeds[far]}; the mean is {usual:.2g}" + (
        ", and above twice that a mixture's indicators are unusual"
        if leverage[far] > 2 * usual
        else ", and no mixture has twice that"
    )
    found.append(Finding("diagnostics", "max_leverage", None, finite(leverage[far]), note=note))
    note = f"{mixtures.seeds[moved]}" + (
        "; above 1: without this mixture the rule would be another"
        if cook[moved] > 1
        else "; below 1: no single mixture decides the rule"
    )
    found.append(Finding("diagnostics", "max_cooks_distance", None, finite(cook[moved]), note=note))
    rows = zip(mixtures.seeds, fit.fittedvalues, fit.resid, leverage, cook, strict=True)
    return found + [Finding("residuals", *row) for row in rows]


def collinearity(mixtures: Mixtures) -> list[Finding]:
    """Section ``vif``: each candidate's variance inflation factor among all candidates.

    Above 10 an indicator is called collinear (Marquardt 1970; O'Brien 2007,
    doi:10.1007/s11135-006-9018-6, on why that is a warning and no more).
    """
    frame = pd.DataFrame(mixtures.x, columns=list(mixtures.names))
    kept, dropped = independent_columns(frame, mixtures.names)
    factors: dict[str, float] = {}
    note = ""
    if len(mixtures) > len(kept) + 1:
        columns = np.column_stack([*kept.values()]) if kept else np.empty((len(mixtures), 0))
        factors = dict(zip(kept, inflation_factors(columns), strict=True))
    else:
        note = f"not defined: {len(mixtures)} mixtures for {len(kept)} indicators"
    found = []
    for name in mixtures.names:
        vif = factors.get(name)
        text = dropped.get(name, note)
        if vif is not None and vif > HIGH_VIF:
            text = (
                f"collinear: the other indicators explain {1 - 1 / vif:.1%} of it, so its "
                "coefficient and sign cannot be read alone"
            )
        found.append(Finding("vif", name, None, vif, note=text))
    return found
