"""Gradient boosting by LightGBM, as RegMix predicts mixtures (Liu et al. 2024, arXiv 2407.01492).

Of tens of points no product of indicators can be told: every tree has one split, so that the sum of
all is a step function of each indicator, and the rule stays one that can be read and written down
(Lou et al. 2012, *Intelligible models for classification and regression*,
doi:10.1145/2339530.2339556).
"""

from collections import defaultdict
from typing import Any

import numpy as np

from im_assets.rule.shapes.sample import Bend, Fit, Sample

ROUNDS = 100
RATE = 0.1
LEAF = 3  # least sets in a leaf


def fit_boosting(sample: Sample) -> Fit:
    """The boosted step functions, as many rounds as cross-validation over the folds likes best.

    Raises RuntimeError where LightGBM cannot be loaded.
    """
    try:
        import lightgbm
    except OSError as error:  # its wheel brings no OpenMP, and small images have none
        raise RuntimeError(
            f"rule.shapes: boosting needs LightGBM, which cannot be loaded: {error}; install "
            "libgomp (Debian: libgomp1), or leave boosting out"
        ) from error

    rows = sample.repeated
    x, folds = sample.x[rows], sample.folds[rows]
    level = float(sample.y[rows].mean())
    target = sample.y[rows] - level
    none = Fit(level, np.zeros(x.shape[1]))
    if np.ptp(target) == 0 or len(np.unique(folds)) < 2:
        return none
    parameters: dict[str, Any] = {
        "objective": "regression", "num_leaves": 2, "learning_rate": RATE, "min_data_in_leaf": LEAF,
        "min_data_in_bin": 1, "boost_from_average": False, "verbose": -1, "num_threads": 1,
        "deterministic": True, "force_row_wise": True, "seed": 0, "feature_pre_filter": False,
    }  # fmt: skip

    def grown(part: np.ndarray) -> Any:
        data = lightgbm.Dataset(x[part], target[part], params=parameters)
        return lightgbm.train(parameters, data, ROUNDS)

    errors = np.zeros(ROUNDS + 1)
    for fold in np.unique(folds):
        out = folds == fold
        left = target[out].astype(float)
        errors[0] += left @ left
        trees = _stumps(grown(~out))
        for done, tree in enumerate(trees, 1):
            left = left - _value(tree, x[out])
            errors[done] += left @ left
        errors[len(trees) + 1 :] += left @ left
    rounds = int(np.argmin(errors))
    steps: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for place, *step in _stumps(grown(np.ones(len(x), dtype=bool)))[:rounds]:
        steps[place].append((step[0], step[1], step[2]))
    bends = {place: _bend(found) for place, found in sorted(steps.items())}
    fit = Fit(level, none.slopes, bends)
    off = float(np.average(sample.y - fit.predict(sample.x), weights=sample.counts))
    return Fit(level + off, none.slopes, bends)


def _stumps(model: Any) -> list[tuple[int, float, float, float]]:
    """The splits: indicator's place, threshold, value up to it, value beyond."""
    found = []
    for tree in model.dump_model()["tree_info"]:
        root = tree["tree_structure"]
        if "split_feature" not in root:  # nothing left to split
            break
        found.append(
            (
                int(root["split_feature"]),
                float(root["threshold"]),
                float(root["left_child"]["leaf_value"]),
                float(root["right_child"]["leaf_value"]),
            )
        )
    return found


def _value(tree: tuple[int, float, float, float], x: np.ndarray) -> np.ndarray:
    place, threshold, low, high = tree
    return np.where(x[:, place] <= threshold, low, high)


def _bend(found: list[tuple[float, float, float]]) -> Bend:
    """The sum of some steps (threshold, value up to it, value beyond)."""
    at = np.unique([threshold for threshold, _, _ in found])
    value = np.zeros(len(at) + 1)
    for threshold, low, high in found:
        place = int(np.searchsorted(at, threshold))
        value[: place + 1] += low
        value[place + 1 :] += high
    return Bend(at, value, steps=True)
