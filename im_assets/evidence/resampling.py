"""What chance does to a rule: bootstrap resamples of the mixtures.

The indicators are chosen anew in every resample: an interval that keeps the indicators which the
measured losses chose would count their choice as known.
"""

from collections.abc import Sequence

import numpy as np

from im_assets.evidence.findings import Finding, generator, interval
from im_assets.evidence.kinds import Inclusion, ResampledCoefficient, ShapeOfRule
from im_assets.rule.choosing import Points
from im_assets.rule.model import Rule
from im_assets.rule.refitting import refitted
from im_resources.study import RuleSettings


def bootstrap(mixtures: Points, rule: Rule, settings: RuleSettings) -> list[Finding]:
    """Sections ``inclusion`` (how often each indicator is chosen, with Wilson's interval) and
    ``coefficient`` (percentile interval and sign of each term, of the resamples that choose it:
    whether it belongs in the rule is the other section's question). And ``shape``, where the rule
    could be of several.

    Efron 1979; for the frequency of selection Sauerbrei and Schumacher 1992 (doi:10.1002/
    sim.4780111607). A resample holds about 63 % of the mixtures, so frequencies are a little low.
    """
    from statsmodels.stats.proportion import proportion_confint

    n, resamples = len(mixtures), settings.bootstrap
    weights = generator(1).multinomial(n, np.full(n, 1 / n), size=resamples)
    versions = refitted(mixtures, weights, settings)
    masks, slopes = versions.masks, versions.slopes
    estimates = {c.name: c.estimate for c in rule.coefficients}
    found: list[Finding] = []
    for i, name in enumerate(mixtures.names):
        count = int(masks[:, i].sum())
        low, high = proportion_confint(count, resamples, 1 - settings.confidence, method="wilson")
        share = count / resamples
        found.append(
            Inclusion(item=name, value=share, low=low, high=high, in_rule=name in rule.indicators)
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
    return [*found, *_shapes(rule, versions.shapes)]


def _shapes(rule: Rule, resampled: Sequence[str]) -> list[Finding]:
    """Section ``shape``: what the rule could have been, and how often the resamples choose it."""
    return [
        ShapeOfRule(
            item=one.shape,
            value=one.rmse,
            x=resampled.count(one.shape) / len(resampled),
            gain=one.less,
            gain_low=one.less - one.less_error,
            gain_high=one.less + one.less_error,
            chosen=one.shape == rule.shape,
        )
        for one in rule.shapes
    ]
