"""A straight line through points with the confidence band of its mean, for figures."""

import numpy as np

from im_assets.common.charts.look import Look
from im_assets.common.charts.points import Series

STEPS = 25


def regression_line(
    name: str, x: np.ndarray, y: np.ndarray, look: Look = 0, confidence: float = 0.95
) -> tuple[Series, ...]:
    """Least squares of ``y`` on ``x`` (both [points]) over the range of x, with its band.

    The band is the pointwise confidence interval of the mean (Draper and Smith, Applied Regression
    Analysis, 1.4). Nothing when there are fewer than three points or all x are equal.
    """
    from scipy.stats import linregress, t

    if len(x) < 3 or np.ptp(x) == 0:
        return ()
    fit = linregress(x, y)
    at = np.linspace(x.min(), x.max(), STEPS)
    fitted = fit.intercept + fit.slope * at
    residual = y - fit.intercept - fit.slope * x
    error = np.sqrt((residual**2).sum() / (len(x) - 2))
    spread = ((x - x.mean()) ** 2).sum()
    half = t.ppf((1 + confidence) / 2, len(x) - 2) * error
    half = half * np.sqrt(1 / len(x) + (at - x.mean()) ** 2 / spread)
    xs, ys, low, high = (tuple(map(float, v)) for v in (at, fitted, fitted - half, fitted + half))
    return (Series(name, xs, ys, look=look, points=False, line="solid", low=low, high=high),)
