"""Would shuffled losses give as good a rule? A search among hundreds of rules always finds one.

The losses are shuffled over the mixtures, which cuts every tie to the indicators, and the rule is
chosen anew for each shuffle (Phipson and Smyth 2010, doi:10.2202/1544-6115.1585). Nothing here is
assumed of the errors but that under chance any mixture could have had any loss.

A rule is called beyond chance (`Rule.beyond_chance`) by its fit on mixtures left out, ``loo_r2``:
that is what subsets are chosen by, and it finds a relation more often than R² does.
"""

import numpy as np

from im_assets.rule.choosing import Points, selections
from im_assets.rule.model import CHANCE, AgainstChance, Chance
from im_assets.rule.refitting import lines_only, versions_of
from im_assets.rule.regression import COLLINEAR, EXACT
from im_assets.rule.shapes.comparing import compare
from im_resources.study import RuleSettings

SEED = 2
SAME = 1e-12  # equal fits of equal models may differ by rounding, and equal is as good


def permutation_test(mixtures: Points, settings: RuleSettings) -> Chance:
    """The fit of the chosen rule against that of ``rule.permutations`` shuffles of the target.

    ``r2`` and ``loo_r2`` (1 less the left-out error's share of that of the mean, the indicators
    kept), each with the 5 and 95 % points of its null and p = (1 + shuffles at least as good) / (1
    + shuffles). A rule without indicators fits as the mean does, 0. Of several shapes the choice
    among them is made anew as well, and ``loo_r2`` is on folds left out.
    """
    generator = np.random.Generator(np.random.PCG64([SEED]))
    shuffled = generator.permuted(np.tile(mixtures.y, (settings.permutations, 1)), axis=1)
    targets = np.vstack([mixtures.y, shuffled])
    once = np.ones((1, len(mixtures)), dtype=int)
    if lines_only(settings):
        masks = selections(mixtures, once, settings, targets)
        fits = _fits(mixtures.x, targets, masks)
    else:
        found = [compare(s, settings) for s in versions_of(mixtures, once, targets)]
        r2s = [one.fit.r2(mixtures.x, y) for one, y in zip(found, targets, strict=True)]
        fits = np.array(r2s), np.array([one.r2_left_out for one in found])
    r2, loo_r2 = map(_against, fits)
    return Chance(shuffles=settings.permutations, r2=r2, loo_r2=loo_r2)


def told(chance: Chance, rows: int | None, values: str = "losses") -> str:
    """What the shuffles came to of a rule that is not beyond chance, in half a sentence.

    Args:
        rows: the mixtures that the rule was fitted on.
        values: what was shuffled, as `Target.plural` has it.
    """
    return (
        f"shuffled {values} too often give a rule that does as well on mixtures left out "
        f"(p = {chance.loo_r2.p:.2g} of {chance.shuffles} shuffles, {rows} mixtures; up to "
        f"{CHANCE} counts as beyond chance)"
    )


def _against(values: np.ndarray) -> AgainstChance:
    """The first of the fits against the others, those of shuffles."""
    observed, null = values[0], values[1:]
    low, high = np.quantile(null, [0.05, 0.95])
    p = (1 + np.sum(null >= observed - SAME)) / (1 + len(null))
    return AgainstChance(value=float(observed), low=float(low), high=float(high), p=float(p))


def _error_left_out(z: np.ndarray, y: np.ndarray, row: int) -> float:
    """The error at a row that alone carries an indicator: without it nothing says that slope, and
    the fit to the others has none, as in `choosing.left_out`.

    Args:
        z: the rule's indicators (rows, indicators).
    """
    others = np.arange(len(y)) != row
    centre, level = z[others].mean(axis=0), y[others].mean()
    rest = z[others] - centre
    varies = np.linalg.norm(rest, axis=0) > COLLINEAR * np.linalg.norm(z, axis=0)
    slopes = np.linalg.lstsq(rest[:, varies], y[others] - level, rcond=COLLINEAR)[0]
    return float(y[row] - level - (z[row] - centre)[varies] @ slopes)


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
        kept = 1 - 1 / n - (q**2).sum(axis=1)
        alone = kept <= COLLINEAR
        error = left / np.where(alone, 1.0, kept)
        for row in np.flatnonzero(alone):
            error[row] = _error_left_out(z[:, mask], y, int(row))
        r2[i] = 1 - (left @ left) / total
        loo_r2[i] = 1 - (error @ error) / (total * (n / (n - 1)) ** 2)
    return r2, loo_r2
