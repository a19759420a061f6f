"""What twice as many mixtures would add to the rule's rank correlation.

The learning curve cannot be drawn out to twice its length by a formula: with few mixtures it rises
steeply, while the indicators are not yet found, and then no more. On simulated studies the gain by
a - b/m was 0.14 where the true one was 0.00. So studies like this one are simulated: the target is
linear in the indicators, with strengths that these mixtures allow, and the study's own rule is
chosen and fitted on as many mixtures as there are, and on twice as many. The rank correlation of
such a rule with new mixtures is known in closed form, and needs no test set.

The strengths are drawn anew for each simulated study: how much of the target's variance the
indicators explain, from what F allows (a fiducial draw of the noncentrality); and where it lies,
spread over all indicators, as a normal prior of that size and the least-squares fit have it
(empirical Bayes). Half of them have it in the rule's indicators alone, unless the others are missed
by an F test.
"""

from dataclasses import dataclass

import numpy as np

from im_assets.common.tracking import tracked
from im_assets.evidence.findings import generator
from im_assets.rule.choosing import Points, selections, weighted_fits
from im_assets.rule.regression import COLLINEAR, is_constant
from im_resources.study import RuleSettings

BATCHES, MODELS, STUDIES = 4, 16, 4  # draws of mixtures; models in each; studies of each model
# The drawn models are too alike, since all have these mixtures' indicators: with their spread taken
# so much wider, and FLOOR / mixtures beyond it, 95 % intervals hold the true gain of 91 to 97 % of
# simulated studies of 16 to 80 mixtures (docs/rule.md).
WIDER = 1.25
FLOOR = 0.5
MISSED = 0.05  # a p below it: the indicators outside of the rule explain something as well


@dataclass(frozen=True)
class Gain:
    """The expected gain in Spearman, with its interval, and the ``models`` that it is the mean of:
    the gain of each, shape (models,)."""

    value: float
    low: float
    high: float
    models: np.ndarray


def expected_gain(mixtures: Points, settings: RuleSettings) -> Gain | None:
    """The gain from twice as many mixtures like these, under the drawn models.

    None where nothing can be drawn: the target or all indicators are constant, or no degree of
    freedom is left beside the indicators.
    """
    models = _models(mixtures, settings)
    if models is None:
        return None
    slopes, explained = models
    n, rng = len(mixtures), generator(4, 2)
    centred = mixtures.x - mixtures.x.mean(axis=0)
    found = np.empty((BATCHES, MODELS, STUDIES))
    for batch in tracked(range(BATCHES), "twice as many mixtures", "draws of the mixtures"):
        # Means over many examples are about normal, with the covariance that these mixtures show.
        x = rng.normal(size=(2 * n, n)) @ centred / np.sqrt(n)
        part = slice(batch * MODELS, (batch + 1) * MODELS)
        true, share = np.repeat(slopes[part], STUDIES, axis=0), np.repeat(explained[part], STUDIES)
        noise = rng.normal(size=(len(true), 2 * n)) * np.sqrt(1 - share)[:, None]
        y = true @ x.T + noise
        half, double = (
            _spearman(x[:m], y[:, :m], true, share, centred, settings) for m in (n, 2 * n)
        )
        found[batch] = (double - half).reshape(MODELS, STUDIES)
    return _gain(found.reshape(-1, STUDIES), n, settings.confidence)


def _gain(found: np.ndarray, mixtures: int, confidence: float) -> Gain:
    """The interval of gains (models, studies): they differ between models, and by the luck of each
    study, which is taken out again by shrinking the models' means towards their own."""
    means = found.mean(axis=1)
    centre, spread = float(means.mean()), float(means.var(ddof=1))
    luck = found.var(axis=1, ddof=1).mean() / found.shape[1]
    kept = np.sqrt(max(0.0, 1 - luck / spread)) if spread > 0 else 0.0
    models = centre + kept * (means - centre)
    low, high = np.quantile(models, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = FLOOR / mixtures
    return Gain(
        centre,
        float(centre - WIDER * (centre - low) - beyond),
        float(centre + WIDER * (high - centre) + beyond),
        models,
    )


def _models(mixtures: Points, settings: RuleSettings) -> tuple[np.ndarray, np.ndarray] | None:
    """Slopes (models, indicators) of a target of variance 1, and the share of it that they explain
    (models,)."""
    x, y = mixtures.x, mixtures.y
    varies = np.array([not is_constant(column) for column in x.T], dtype=bool)
    if is_constant(y) or not varies.any():
        return None
    n, count, rng = len(mixtures), BATCHES * MODELS, generator(4, 1)
    target = (y - y.mean()) / y.std()
    basis, _ = _directions(x, varies)
    p = basis.shape[1]
    freedom = n - p - 1
    if freedom < 1:
        return None
    fitted = float(np.sum((basis.T @ target) ** 2)) / n
    f = fitted / max(1 - fitted, 1e-12)
    # F's noncentrality: (root + z)^2 + chi2(p - 1) over chi2(freedom) is what f came from.
    upper = f * rng.chisquare(freedom, count)
    root = np.sqrt(np.maximum(0, upper - (rng.chisquare(p - 1, count) if p > 1 else 0.0)))
    noncentral = np.maximum(0, root - rng.normal(size=count)) ** 2
    explained = noncentral / (noncentral + n)
    slopes = np.empty((count, x.shape[1]))
    chosen = varies & selections(mixtures, np.ones((1, n), dtype=int), settings)[0]
    alone = chosen.any() and not _missed(x, target, chosen, fitted, p, freedom)
    for start, members in enumerate((varies, chosen if alone else varies)):
        part = slice(start, None, 2)
        slopes[part] = _slopes(x, target, members, explained[part], rng)
    return slopes, explained


def _missed(
    x: np.ndarray, target: np.ndarray, chosen: np.ndarray, fitted: float, p: int, freedom: int
) -> bool:
    """Whether F says that the other indicators add to the ``chosen`` ones."""
    from scipy.stats import f

    basis, _ = _directions(x, chosen)
    others = p - basis.shape[1]
    if not others or fitted >= 1:
        return False
    gained = fitted - float(np.sum((basis.T @ target) ** 2)) / len(target)
    return bool(f.sf(gained / others / ((1 - fitted) / freedom), others, freedom) < MISSED)


def _slopes(
    x: np.ndarray,
    target: np.ndarray,
    members: np.ndarray,
    explained: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Slopes of the ``members`` among the indicators that explain these shares (models,) of a
    target of variance 1, drawn given the mixtures."""
    n = len(target)
    basis, back = _directions(x, members)
    seen = basis.T @ target / np.sqrt(n)  # least squares on directions of variance 1
    prior, error = explained / len(seen), (1 - explained) / n
    kept = (prior / (prior + error))[:, None]
    # Drawn over mixtures, which do not turn with the columns' order as the directions do.
    luck = rng.normal(size=(len(prior), n)) @ basis
    drawn = kept * seen + np.sqrt(kept * error[:, None]) * luck
    size = np.linalg.norm(drawn, axis=1, keepdims=True)
    drawn = np.divide(drawn, size, out=np.zeros_like(drawn), where=size > 0)
    slopes = np.zeros((len(prior), x.shape[1]))
    slopes[:, members] = np.sqrt(explained)[:, None] * drawn @ back.T * np.sqrt(n)
    return slopes


def _directions(x: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions of the centred columns, shape (mixtures, directions), and the matrix
    (columns, directions) that gives them: columns @ matrix = directions."""
    z = x[:, members] - x[:, members].mean(axis=0)
    norm = np.linalg.norm(z, axis=0)
    u, s, vt = np.linalg.svd(z / norm, full_matrices=False)
    held = s > COLLINEAR * s[0]
    return u[:, held], vt[held].T / s[held] / norm[:, None]


def _spearman(
    x: np.ndarray,
    y: np.ndarray,
    true: np.ndarray,
    explained: np.ndarray,
    centred: np.ndarray,
    settings: RuleSettings,
) -> np.ndarray:
    """Spearman on new mixtures of the rule of each study with targets ``y`` (studies, mixtures),
    shape (studies,); 0 of a rule without slope. For normal variables it is 6/pi arcsin(r/2)
    (Pearson 1907)."""
    names = tuple(str(i) for i in range(x.shape[1]))
    points = Points(tuple(str(i) for i in range(len(x))), names, x, y[0])
    weights = np.ones((1, len(x)), dtype=int)
    masks = selections(points, weights, settings, y)
    _, slopes = weighted_fits(points, np.repeat(weights, len(y), axis=0), masks, y)
    ranked, signal = slopes @ centred.T, true @ centred.T
    norm = np.linalg.norm(ranked, axis=1) * np.linalg.norm(signal, axis=1)
    product = (ranked * signal).sum(axis=1)
    r = np.divide(product, norm, out=np.zeros(len(y)), where=norm > 0) * np.sqrt(explained)
    return 6 / np.pi * np.arcsin(np.clip(r, -1, 1) / 2)
