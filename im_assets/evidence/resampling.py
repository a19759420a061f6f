"""What chance does to a rule: bootstrap resamples of the mixtures.

The indicators are chosen anew in every resample: an interval that keeps the indicators which the
measured losses chose would count their choice as known.
"""

import numpy as np

from im_assets.evidence.findings import Finding, generator, interval
from im_assets.evidence.kinds import Inclusion, ResampledCoefficient
from im_assets.rule.choosing import Points, selections, weighted_fits
from im_assets.rule.model import Rule
from im_resources.study import RuleSettings


def bootstrap(mixtures: Points, rule: Rule, settings: RuleSettings) -> list[Finding]:
    """Sections ``inclusion`` (how often each indicator is chosen, with Wilson's interval) and
    ``coefficient`` (percentile interval of each term; 0 where a resample leaves it out).

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
        low, high = interval(slopes[:, i], settings.confidence)
        same = float(np.mean(slopes[:, i] * estimates[name] > 0))
        found.append(
            ResampledCoefficient(
                item=name, value=estimates[name], low=low, high=high, same_sign=same
            )
        )
    return found
