"""What chance does to a rule: bootstrap resamples of the mixtures, and shuffled losses.

The indicators are chosen anew in every resample and for every shuffle. An interval or a null that
keeps the indicators which the measured losses chose would count their choice as known.
"""

import numpy as np

from im_assets.evidence.findings import Finding, generator, interval
from im_assets.evidence.kinds import Inclusion, Permutation, ResampledCoefficient
from im_assets.rule.choosing import Points, selections, weighted_fits
from im_assets.rule.model import Rule
from im_assets.rule.regression import EXACT
from im_resources.study import RuleSettings


def bootstrap(mixtures: Points, rule: Rule, settings: RuleSettings) -> list[Finding]:
    """Sections ``inclusion`` (how often each indicator is chosen, with Wilson's interval) and
    ``coefficient`` (percentile interval and sign of each term, of the resamples that choose it:
    whether it belongs in the rule is the other section's question).

    Efron 1979; for the frequency of selection Sauerbrei and Schumacher 1992 (doi:10.1002/
    sim.4780111607). A resample holds about 63 % of the mixtures, so frequencies are a little low.
    """
    from statsmodels.stats.proportion import proportion_confint

    n, resamples = len(mixtures), settings.bootstrap
    weights = generator(1).multinomial(n, np.full(n, 1 / n), size=resamples)
    masks = selections(mixtures, weights, settings)
    _, slopes = weighted_fits(mixtures, weights, masks)
    estimates = {c.name: c.estimate for c in rule.coefficients}
    found: list[Finding] = []
    for i, name in enumerate(mixtures.names):
        count = int(masks[:, i].sum())
        low, high = proportion_confint(count, resamples, 1 - settings.confidence, method="wilson")
        share = count / resamples
        found.append(
            Inclusion(item=name, value=share, low=low, high=high, in_rule=name in estimates)
        )
    for i, name in enumerate(mixtures.names):
        if name not in estimates:
            continue
        there = slopes[masks[:, i], i]
        low, high = interval(there, settings.confidence)
        same = float(np.mean(there * estimates[name] > 0)) if len(there) else None
        found.append(
            ResampledCoefficient(
                item=name,
                value=estimates[name],
                low=low,
                high=high,
                chosen=len(there),
                same_sign=same,
            )
        )
    return found


def permutation(mixtures: Points, settings: RuleSettings) -> list[Finding]:
    """Section ``permutation``: the fit of the best rule against that of a shuffled target.

    ``r2`` and ``loo_r2`` (1 less the left-out error's share of that of the mean), each with the 5
    and 95 % points of its null and p = (1 + shuffles at least as good) / (1 + shuffles) (Phipson
    and Smyth 2010, doi:10.2202/1544-6115.1585).
    """
    n = len(mixtures)
    shuffled = generator(2).permuted(np.tile(mixtures.y, (settings.permutations, 1)), axis=1)
    targets = np.vstack([mixtures.y, shuffled])
    masks = selections(mixtures, np.ones((1, n), dtype=int), settings, targets)
    fits = _fits(mixtures.x, targets, masks)
    found: list[Finding] = []
    for item, values in zip(("r2", "loo_r2"), fits, strict=True):
        observed, null = values[0], values[1:]
        # Equal fits of equal models may differ by rounding, and equal is as good.
        p = (1 + np.sum(null >= observed - 1e-12)) / (1 + len(null))
        low, high = np.quantile(null, [0.05, 0.95])
        found.append(
            Permutation(item=item, value=observed, low=low, high=high, p=p, shuffles=len(null))
        )
    return found


def _fits(x: np.ndarray, targets: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R2, and leave-one-out R2 with the indicators kept, of each row of ``targets``."""
    n = targets.shape[1]
    z = x - x.mean(axis=0)
    norm = np.linalg.norm(z, axis=0)
    z = z / np.where(norm > 0, norm, 1.0)
    r2, loo_r2 = np.zeros((2, len(targets)))
    for i, (y, mask) in enumerate(zip(targets, masks, strict=True)):
        e = y - y.mean()
        total = e @ e
        if not mask.any() or total <= EXACT**2 * (y @ y):
            continue  # the mean alone: 0, as the rule has it
        q, _ = np.linalg.qr(z[:, mask])
        left = e - q @ (q.T @ e)
        # A mixture that alone carries an indicator cannot be left out: an infinite error.
        with np.errstate(divide="ignore"):
            error = left / np.maximum(1 - 1 / n - (q**2).sum(axis=1), 0)
        r2[i] = 1 - (left @ left) / total
        loo_r2[i] = 1 - (error @ error) / (total * (n / (n - 1)) ** 2)
    return r2, loo_r2
