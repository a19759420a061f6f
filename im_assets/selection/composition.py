"""What a selection is composed of, against its pool: has it collapsed onto one kind of example?

A rule is linear and its indicators are crude: one that happens to differ by language or length can
fill a selection with a single kind, which looks excellent by the rule. So the selection's shares of
language, source, category and length are held against the pool's. The measure is their total
variation distance, half the sum of the shares' differences: the part of the selection that would
have to be other examples for its shares to be the pool's.

A selection is meant to differ from its pool, so it is not enough that chance would not do it: a
selection concentrates when the distance is at least ``NOTABLE``, a quarter of the selection, and
also beyond what random subsets of its size have. With many groups or few examples, these are far
from the pool as well: the bound is their quantile at which one random selection in twenty is called
concentrated at most, over all columns together (Bonferroni).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from im_resources.warehouse import Warehouse

NOTABLE = 0.25
FALSE_ALARMS = 0.05
DRAWS = 4000
LENGTH = "length"
COLUMNS = ("language", "source", "category", LENGTH)
QUARTILES = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
_NAMES = {LENGTH: "length of the response"}


@dataclass(frozen=True)
class Composition:
    """One column's groups in pool and selection.

    Attributes:
        shares: index group; ``pool`` and ``selected``, each summing to 1; what the selection has
            most too much of first.
        distance: total variation distance of the two, in [0, 1].
        bound: the distance from which the selection concentrates.
    """

    column: str
    shares: pd.DataFrame
    distance: float
    bound: float

    @property
    def concentrates(self) -> bool:
        return self.distance >= self.bound

    @property
    def sentence(self) -> str:
        """What the selection has too much of: ``94 % are zh (language); 18 % of the pool are``."""
        group = self.shares.index[0]
        selected, pool = self.shares["selected"].iloc[0], self.shares["pool"].iloc[0]
        return (
            f"{selected:.0%} of the selection is {group or 'without one'} "
            f"({_NAMES.get(self.column, self.column)}), and {_percent(pool)} of the pool"
        )


def compositions(examples: pd.DataFrame, selected: pd.Series) -> list[Composition]:
    """How a selection is composed, by each column that the pool has several groups of.

    Args:
        examples: the pool: example_id, those of language, source and category that are known, and
            ``length`` (of the response, in characters).
        selected: example_ids of the selection.
    """
    return _compositions(examples, examples["example_id"].isin(set(selected)).to_numpy())


def composition_of(dataset: str, selected: pd.Series, warehouse: Warehouse) -> list[Composition]:
    """`compositions` of a pool's table, of which a few numbers a row are read."""
    wanted = {"selected": pa.table({"example_id": pa.array(selected, pa.string())})}
    examples = warehouse.query("composition.sql", {"dataset": dataset}, wanted, categories=True)
    return _compositions(examples, examples.pop("is_selected").to_numpy(dtype=bool))


def _compositions(examples: pd.DataFrame, inside: np.ndarray) -> list[Composition]:
    groups = {c: _groups(examples[c], c) for c in COLUMNS if c in examples}
    groups = {column: values for column, values in groups.items() if values.nunique() > 1}
    if not inside.any():
        return []
    return [
        _composition(column, values, inside, FALSE_ALARMS / len(groups))
        for column, values in groups.items()
    ]


def composition_table(found: list[Composition], most: int = 6) -> pd.DataFrame:
    """The shares as rows: column, group, pool, selected; of each column the ``most`` that differ
    most, and the distance and its bound."""
    parts = []
    for one in found:
        apart = (one.shares["selected"] - one.shares["pool"]).abs()
        rows = one.shares.loc[apart.nlargest(most, keep="first").index]
        rows = rows.rename_axis("group").reset_index()
        rows.insert(0, "column", one.column)
        parts.append(rows.assign(distance=one.distance, concentrates_from=one.bound))
    names = ["column", "group", "pool", "selected", "distance", "concentrates_from"]
    return pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame(columns=names)


def concentration(found: list[Composition]) -> str:
    """What the selection concentrates on, in a sentence; '' where it does not."""
    return "; ".join(one.sentence for one in found if one.concentrates)


def _composition(
    column: str, values: pd.Series, inside: np.ndarray, false_alarms: float
) -> Composition:
    counts = values.value_counts().sort_index()
    size = int(inside.sum())
    shares = pd.DataFrame({"pool": counts / len(values)})
    shares["selected"] = values[inside].value_counts().reindex(counts.index, fill_value=0) / size
    pool = shares["pool"].to_numpy()
    distance = float(_distances(shares[["selected"]].to_numpy().T, pool)[0])
    # The generator is seeded: the same tables give the same bound.
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = generator.multivariate_hypergeometric(counts.to_numpy(), size, DRAWS, "marginals")
    chance = float(np.quantile(_distances(drawn / size, pool), 1 - false_alarms, method="higher"))
    order = (shares["selected"] - shares["pool"]).sort_values(ascending=False, kind="stable").index
    # Strictly beyond chance: where one random subset is as far as another, none is remarkable.
    return Composition(
        column, shares.loc[order], distance, max(NOTABLE, float(np.nextafter(chance, 2)))
    )


def _distances(shares: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Total variation distances of several compositions, [compositions, groups], to the pool's."""
    found: np.ndarray = np.abs(shares - pool).sum(axis=1) / 2
    return found


def _groups(values: pd.Series, column: str) -> pd.Series:
    if column != LENGTH:
        known = values.astype(object).fillna("")
        return known.astype(str).reset_index(drop=True)
    edges = np.quantile(values, [0.25, 0.5, 0.75])
    return pd.Series(np.array(QUARTILES)[np.searchsorted(edges, values)])


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"
