"""What the rule is fitted on: one row a mixture, of indicators and losses."""

from collections.abc import Sequence

import pandas as pd

from im_assets.scoring.batch import Models
from im_assets.scoring.registry import Indicator
from im_assets.scoring.scorer import embeddings_of
from im_resources.warehouse import Warehouse

PER_MIXTURE = ["seed", "n_examples", "token_loss", "instruction_loss", "loss", "log_loss"]


def mixture_scores(
    mixtures: pd.DataFrame, indicators: Sequence[Indicator], models: Models, warehouse: Warehouse
) -> pd.DataFrame:
    """The set-level indicators of every mixture: columns seed, indicator, value."""
    rows = []
    for indicator in (i for i in indicators if i.backend.scope == "mixture"):
        ids = mixtures["example_id"].unique()
        place = pd.Series(range(len(ids)), index=ids)
        vectors = embeddings_of(list(ids), models, warehouse)
        for seed, members in mixtures.groupby("seed"):
            chosen_vectors = vectors[place[members["example_id"]].to_numpy()]
            values = indicator.backend.score(chosen_vectors, **indicator.options)
            rows.append((str(seed), indicator.name, float(values.mean())))
    frame = pd.DataFrame(rows, columns=["seed", "indicator", "value"])
    return frame.astype({"seed": "string", "indicator": "string", "value": "float64"})


def one_row_a_mixture(long: pd.DataFrame, indicators: Sequence[str]) -> pd.DataFrame:
    """Pivot the query's rows to one a mixture: seed, n_examples, indicators…, losses.

    Raises ValueError when a member of a mixture lacks a score: its mean would be of other examples.
    """
    short = long[long["scored"] != long["n_examples"]]
    if len(short):
        first = short.iloc[0]
        raise ValueError(
            f"{first['indicator']} is scored for {first['scored']} of the {first['n_examples']} "
            f"examples of {first['seed']}; materialize example_scores for all mixtures again"
        )
    wide = long.pivot(index="seed", columns="indicator", values="value")
    missing = [name for name in indicators if name not in wide or wide[name].isna().any()]
    if missing:
        raise ValueError(
            f"no scores of {', '.join(missing)} for some mixture; materialize example_scores again"
        )
    losses = long[PER_MIXTURE].drop_duplicates("seed").set_index("seed")
    table = losses[["n_examples"]].join(wide[list(indicators)]).join(losses[PER_MIXTURE[2:]])
    return table.reset_index()
