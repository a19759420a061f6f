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

# Switzerland about 1888 (Mosteller and Tukey 1977), as in R's datasets::swiss; fertility last.
SWISS_NAMES = ["agriculture", "examination", "education", "catholic", "infant_mortality"]
SWISS = pd.DataFrame(
    [
        (17, 15, 12, 9.96, 22.2, 80.2), (45.1, 6, 9, 84.84, 22.2, 83.1),
        (39.7, 5, 5, 93.4, 20.2, 92.5), (36.5, 12, 7, 33.77, 20.3, 85.8),
        (43.5, 17, 15, 5.16, 20.6, 76.9), (35.3, 9, 7, 90.57, 26.6, 76.1),
        (70.2, 16, 7, 92.85, 23.6, 83.8), (67.8, 14, 8, 97.16, 24.9, 92.4),
        (53.3, 12, 7, 97.67, 21, 82.4), (45.2, 16, 13, 91.38, 24.4, 82.9),
        (64.5, 14, 6, 98.61, 24.5, 87.1), (62, 21, 12, 8.52, 16.5, 64.1),
        (67.5, 14, 7, 2.27, 19.1, 66.9), (60.7, 19, 12, 4.43, 22.7, 68.9),
        (69.3, 22, 5, 2.82, 18.7, 61.7), (72.6, 18, 2, 24.2, 21.2, 68.3),
        (34, 17, 8, 3.3, 20, 71.7), (19.4, 26, 28, 12.11, 20.2, 55.7),
        (15.2, 31, 20, 2.15, 10.8, 54.3), (73, 19, 9, 2.84, 20, 65.1),
        (59.8, 22, 10, 5.23, 18, 65.5), (55.1, 14, 3, 4.52, 22.4, 65),
        (50.9, 22, 12, 15.14, 16.7, 56.6), (54.1, 20, 6, 4.2, 15.3, 57.4),
        (71.2, 12, 1, 2.4, 21, 72.5), (58.1, 14, 8, 5.23, 23.8, 74.2), (63.5, 6, 3, 2.56, 18, 72),
        (60.8, 16, 10, 7.72, 16.3, 60.5), (26.8, 25, 19, 18.46, 20.9, 58.3),
        (49.5, 15, 8, 6.1, 22.5, 65.4), (85.9, 3, 2, 99.71, 15.1, 75.5),
        (84.9, 7, 6, 99.68, 19.8, 69.3), (89.7, 5, 2, 100, 18.3, 77.3),
        (78.2, 12, 6, 98.96, 19.4, 70.5), (64.9, 7, 3, 98.22, 20.2, 79.4),
        (75.9, 9, 9, 99.06, 17.8, 65), (84.6, 3, 3, 99.46, 16.3, 92.2),
        (63.1, 13, 13, 96.83, 18.1, 79.3), (38.4, 26, 12, 5.62, 20.3, 70.4),
        (7.7, 29, 11, 13.79, 20.5, 65.7), (16.7, 22, 13, 11.22, 18.9, 72.7),
        (17.6, 35, 32, 16.92, 23, 64.4), (37.6, 15, 7, 4.97, 20, 77.6),
        (18.7, 25, 7, 8.65, 19.5, 67.6), (1.2, 37, 53, 42.34, 18, 35),
        (46.6, 16, 29, 50.43, 18.2, 44.7), (27.7, 22, 29, 58.33, 19.3, 42.8),
    ],
    columns=[*SWISS_NAMES, "log_loss"],
    dtype=float,
)  # fmt: skip


def random_study(
    rows: int = 24, slopes: Sequence[float] = (0.5, -0.3, 0.0), noise: float = 0.2, seed: int = 0
) -> pd.DataFrame:
    """A table as `indicator_table` gives it, with indicators x0, x1, … of the given slopes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, len(slopes)))
    log_loss = 1 + x @ np.asarray(slopes) + noise * rng.normal(size=rows)
    table = pd.DataFrame(x, columns=[f"x{i}" for i in range(len(slopes))])
    table.insert(0, "experiment", "mixtures")
    table.insert(1, "partition", [f"seed-{i:03d}" for i in range(rows)])
    table.insert(2, "n_examples", 100)
    table.insert(3, "largest_source", ["ab"[i % 2] for i in range(rows)])
    table["set_id"] = [f"set-{i:03d}" for i in range(rows)]
    loss = np.exp(log_loss)
    return table.assign(token_loss=loss, loss=loss, log_loss=log_loss, values_id="values")
