"""Data whose regression is published, and a small random study to fit."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

# Brownlee (1965), as in R's datasets::stackloss: air flow, water temperature, acid, stack loss.
STACKLOSS = pd.DataFrame(
    [
        (80, 27, 89, 42), (80, 27, 88, 37), (75, 25, 90, 37), (62, 24, 87, 28), (62, 22, 87, 18),
        (62, 23, 87, 18), (62, 24, 93, 19), (62, 24, 93, 20), (58, 23, 87, 15), (58, 18, 80, 14),
        (58, 18, 89, 14), (58, 17, 88, 13), (58, 18, 82, 11), (58, 19, 93, 12), (50, 18, 89, 8),
        (50, 18, 86, 7), (50, 19, 72, 8), (50, 19, 79, 8), (50, 20, 80, 9), (56, 20, 82, 15),
        (70, 20, 91, 15),
    ],
    columns=["air", "water", "acid", "log_loss"],
    dtype=float,
)  # fmt: skip

# Longley (1967), as in R's datasets::longley and NIST's StRD: famously collinear.
LONGLEY_NAMES = ["deflator", "gnp", "unemployed", "forces", "population", "year"]
LONGLEY = pd.DataFrame(
    [
        (83.0, 234289, 2356, 1590, 107608, 1947, 60323),
        (88.5, 259426, 2325, 1456, 108632, 1948, 61122),
        (88.2, 258054, 3682, 1616, 109773, 1949, 60171),
        (89.5, 284599, 3351, 1650, 110929, 1950, 61187),
        (96.2, 328975, 2099, 3099, 112075, 1951, 63221),
        (98.1, 346999, 1932, 3594, 113270, 1952, 63639),
        (99.0, 365385, 1870, 3547, 115094, 1953, 64989),
        (100.0, 363112, 3578, 3350, 116219, 1954, 63761),
        (101.2, 397469, 2904, 3048, 117388, 1955, 66019),
        (104.6, 419180, 2822, 2857, 118734, 1956, 67857),
        (108.4, 442769, 2936, 2798, 120445, 1957, 68169),
        (110.8, 444546, 4681, 2637, 121950, 1958, 66513),
        (112.6, 482704, 3813, 2552, 123366, 1959, 68655),
        (114.2, 502601, 3931, 2514, 125368, 1960, 69564),
        (115.7, 518173, 4806, 2572, 127852, 1961, 69331),
        (116.9, 554894, 4007, 2827, 130081, 1962, 70551),
    ],
    columns=[*LONGLEY_NAMES, "log_loss"],
    dtype=float,
)


def random_study(
    rows: int = 24, slopes: Sequence[float] = (0.5, -0.3, 0.0), noise: float = 0.2, seed: int = 0
) -> pd.DataFrame:
    """A table as `indicator_table` gives it, with indicators x0, x1, … of the given slopes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, len(slopes)))
    log_loss = 1 + x @ np.asarray(slopes) + noise * rng.normal(size=rows)
    table = pd.DataFrame(x, columns=[f"x{i}" for i in range(len(slopes))])
    table.insert(0, "seed", [f"seed-{i:03d}" for i in range(rows)])
    return table.assign(n_examples=100, loss=np.exp(log_loss), log_loss=log_loss)
