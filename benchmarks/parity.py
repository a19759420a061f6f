"""What the precision of the base does to losses, to the ranks of mixtures and to the rule.

``python -m benchmarks.parity [--profile demo] [--precision fp32 bf16 int8 nf4] [--home DIR]
[--at-once 1]``

The study of the profile is run as a whole in each precision (``python -m im_assets.run``), each as
a study of its own below ``--home``; the first precision is what the others are compared with:

- the loss of each mixture: the largest and the median relative difference;
- the ranks of the mixtures: Spearman's rho with its 95 % interval (2000 bootstrap samples of the
  mixtures), beside the spread of the losses themselves, which says what a difference can move;
- the rule: its terms;
- the selection: how many of the rows are the same ones.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import yaml
from scipy.stats import spearmanr

LOSSES = "select partition, log_loss from indicator_table where experiment = 'mixtures' order by 1"


def main() -> None:
    """Run the study in each precision, then print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--home", type=Path, help="kept; default: a folder that is removed")
    parser.add_argument("--at-once", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        home = (arguments.home or Path(work)).absolute()
        home.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(arguments.at_once) as pool:
            list(pool.map(lambda p: run(arguments.profile, p, home), arguments.precision))
        first, *others = arguments.precision
        print(f"compared with {first}:")
        for other in others:
            print(compared(home, first, other), flush=True)


def run(profile: str, precision: str, home: Path) -> None:
    """The whole study in this precision. Raises CalledProcessError when it fails."""
    path = home / f"parity-{precision}.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "extends": profile,
                "name": f"parity_{precision}",
                "models": {"precision": precision},
            }
        ),
        encoding="utf-8",
    )
    with (home / f"{precision}.log").open("w", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "im_assets.run"],
            env={**os.environ, "IM_PROFILE": str(path), "IM_HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def read(home: Path, precision: str, query: str) -> pd.DataFrame:
    """A table of that study's warehouse."""
    path = home / f"parity_{precision}" / "warehouse.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).df()


def compared(home: Path, first: str, other: str) -> str:
    """What another precision changes, in one line."""
    one, two = (read(home, p, LOSSES).set_index("partition").log_loss for p in (first, other))
    if not one.index.equals(two.index):
        raise SystemExit(f"{first} and {other} have other mixtures: {len(one)} and {len(two)}")
    relative = (np.exp(two - one) - 1).abs()
    draws = np.random.default_rng(0).integers(len(one), size=(2000, len(one)))
    ranks = [spearmanr(one.to_numpy()[d], two.to_numpy()[d])[0] for d in draws]
    low, high = np.nanquantile(ranks, [0.025, 0.975])
    terms = [
        " + ".join(read(home, p, "select term from quality_rule").term[1:]) or "constant"
        for p in (first, other)
    ]
    picked = [
        set(read(home, p, "select example_id from dolly_selection").example_id)
        for p in (first, other)
    ]
    return (
        f"{other}: losses differ by at most {relative.max():.2%}, median {relative.median():.2%} "
        f"(those of {first} spread over {np.exp(one.max() - one.min()) - 1:.2%}); ranks of the "
        f"{len(one)} mixtures {spearmanr(one, two)[0]:.3f} [{low:.3f}, {high:.3f}]; rule "
        f"{terms[0]} / {terms[1]}; {len(picked[0] & picked[1])} of {len(picked[0])} selected rows "
        "are the same"
    )


if __name__ == "__main__":
    main()
