"""Do least squares' assumptions hold: residuals, mixtures that weigh too much, collinearity."""

import numpy as np
import pandas as pd

from im_assets.common.numbers import finite
from im_assets.evidence.findings import Finding
from im_assets.evidence.kinds import (
    Inflation,
    LargestCooksDistance,
    LargestLeverage,
    Residual,
    ResidualTest,
)
from im_assets.rule.choosing import Points
from im_assets.rule.model import Rule
from im_assets.rule.regression import (
    COLLINEAR,
    Dropped,
    distinct_columns,
    inflation_factors,
    least_squares,
)


def residual_diagnostics(mixtures: Points, rule: Rule) -> list[Finding]:
    """Sections ``diagnostics`` and ``residuals`` of the rule's fit on all mixtures.

    ``diagnostics`` has a statistic and its p: breusch_pagan (Koenker's studentized form, as R's
    bptest), shapiro_wilk, and the largest leverage and Cook's distance. ``residuals`` has one row a
    seed: x fitted, value residual, leverage and Cook's distance.
    """
    from scipy.stats import shapiro
    from statsmodels.stats.diagnostic import het_breuschpagan

    x, y = mixtures.x[:, mixtures.mask(rule.indicators)], mixtures.y
    x = (x - x.mean(axis=0)) / np.linalg.norm(x - x.mean(axis=0), axis=0)  # keeps its digits
    fit = least_squares(y, x)
    with np.errstate(divide="ignore", invalid="ignore"):  # an exact fit leaves no residual
        influence = fit.get_influence()
        leverage, cook = influence.hat_matrix_diag, influence.cooks_distance[0]
    found: list[Finding] = []
    if rule.indicators:
        statistic, p, _, _ = het_breuschpagan(fit.resid, fit.model.exog)
        found.append(ResidualTest(item="breusch_pagan", value=finite(statistic), p=finite(p)))
    else:
        found.append(ResidualTest(item="breusch_pagan"))
    if np.ptp(fit.resid) > 0:
        statistic, p = shapiro(fit.resid)
        found.append(ResidualTest(item="shapiro_wilk", value=finite(statistic), p=finite(p)))
    mean = (len(rule.indicators) + 1) / len(mixtures)
    far, moved = int(np.argmax(leverage)), int(np.argmax(np.nan_to_num(cook)))
    found.append(LargestLeverage(value=float(leverage[far]), seed=mixtures.seeds[far], mean=mean))
    found.append(LargestCooksDistance(value=float(cook[moved]), seed=mixtures.seeds[moved]))
    rows = zip(mixtures.seeds, fit.fittedvalues, fit.resid, leverage, cook, strict=True)
    found += [
        Residual(item=seed, x=fitted, value=residual, leverage=weight, cooks_distance=distance)
        for seed, fitted, residual, weight, distance in rows
    ]
    return found


def collinearity(mixtures: Points) -> list[Finding]:
    """Section ``vif``: each candidate's variance inflation factor among all candidates.

    A copy of another is left out; of an exact combination every member is called one, whichever
    came first. Above 10 an indicator is called collinear (Marquardt 1970; O'Brien 2007,
    doi:10.1007/s11135-006-9018-6, on why that is a warning and no more).
    """
    frame = pd.DataFrame(mixtures.x, columns=list(mixtures.names))
    kept, dropped = distinct_columns(frame, mixtures.names)
    factors: dict[str, float] = {}
    x = np.column_stack([*kept.values()]) if kept else np.empty((len(mixtures), 0))
    # Of as many independent columns as this each fits all others, whatever they are.
    if np.linalg.matrix_rank(x, tol=COLLINEAR) < len(mixtures) - 1:
        factors = dict(zip(kept, inflation_factors(x), strict=True))
    among = [name for name, factor in factors.items() if np.isinf(factor)]
    dropped |= {n: Dropped("combination", tuple(o for o in among if o != n)) for n in among}
    return [
        Inflation(
            item=name,
            value=None if name in dropped else factors.get(name),
            dropped=dropped.get(name),
            mixtures=len(mixtures),
            fitted=len(kept),
        )
        for name in mixtures.names
    ]
