"""Seconds of set_aware on a large pool, next to a k-means coreset of the same size.

``python benchmarks/selection.py [--rows 100000] [--size 1000] [--dimensions 768]``

The peer is what one would write with scikit-learn: MiniBatchKMeans with one cluster for each wanted
example over the same candidates, then the example of each cluster that the rule ranks best. Both
select from the same synthetic pool (a thousand clusters of unit vectors, a random rule) in the same
process. Coverage is the mean cosine of 5,000 random examples of the pool to their nearest selected
one; quality is minus the mean predicted log loss. The plain rule is shown for scale.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from im_assets.rule.model import Coefficient, Rule
from im_assets.selection.choosing import choose
from im_assets.selection.pool import Pool
from im_resources.study import StrategySettings

CANDIDATES = 4  # multiples of the size, as in set_aware


def synthetic_pool(rows: int, dimensions: int, seed: int = 0) -> Pool:
    """Clustered unit vectors, and one indicator that half depends on the cluster."""
    rng = np.random.Generator(np.random.PCG64(seed))
    centres = rng.standard_normal((1000, dimensions), dtype=np.float32)
    cluster = rng.integers(len(centres), size=rows)
    vectors = rng.standard_normal((rows, dimensions), dtype=np.float32)
    vectors += centres[cluster]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"{i:06d}" for i in range(rows)]
    reward = rng.normal(size=len(centres))[cluster] + rng.normal(size=rows)
    slope = Coefficient(name="reward", estimate=-1.0)
    return Pool(
        examples=pd.DataFrame({"example_id": ids}),
        indicators=pd.DataFrame({"reward": reward}, index=pd.Index(ids, name="example_id")),
        rule=Rule(
            source="fitted",
            constant=Coefficient(name="constant", estimate=0.0),
            coefficients=(slope,),
        ),
        embeddings=lambda: vectors,
        set_size=2000,
    )


def k_means_coreset(pool: Pool, size: int) -> np.ndarray:
    """The best example by the rule of each k-means cluster of the candidates."""
    from sklearn.cluster import MiniBatchKMeans

    best = pool.ranked(-pool.column("reward"))[: CANDIDATES * size]
    model = MiniBatchKMeans(size, random_state=0, batch_size=4096, n_init=1)
    labels = model.fit_predict(pool.embeddings()[best])
    _, first = np.unique(labels, return_index=True)  # candidates are in the rule's order
    return best[np.sort(first)]


def coverage(pool: Pool, chosen: np.ndarray) -> float:
    """Mean cosine of 5,000 random examples to their nearest selected one."""
    rng = np.random.Generator(np.random.PCG64(1))
    vectors = pool.embeddings()
    sample = vectors[rng.choice(len(pool), min(5000, len(pool)), replace=False)]
    return float((sample @ vectors[chosen].T).max(axis=1).mean())


def main() -> None:
    """Print one line a method, and the ratio of set_aware to the peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=768)
    arguments = parser.parse_args()
    pool = synthetic_pool(arguments.rows, arguments.dimensions)

    def by(strategy: str) -> Callable[[], np.ndarray]:
        return lambda: choose(StrategySettings(strategy=strategy), pool, arguments.size, 0)

    methods = {
        "rule": by("rule"),
        "set_aware": by("set_aware"),
        "k-means coreset": lambda: k_means_coreset(pool, arguments.size),
    }
    print(f"{arguments.rows} rows of {arguments.dimensions}, {arguments.size} selected")
    seconds = {}
    for name, method in methods.items():
        start = time.perf_counter()
        chosen = method()
        seconds[name] = time.perf_counter() - start
        quality = pool.column("reward")[chosen].mean()
        print(
            f"{name:16} {seconds[name]:8.2f} s   selected {len(chosen):6}   "
            f"coverage {coverage(pool, chosen):.4f}   quality {quality:.3f}"
        )
    ratio = seconds["k-means coreset"] / seconds["set_aware"]
    print(f"set_aware is {ratio:.1f} times as fast as the k-means coreset")


if __name__ == "__main__":
    main()
