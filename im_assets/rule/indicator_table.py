"""indicator_table: what the rule is fitted on, one row a mixture."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.catalog import presentation, preview
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import Indicator, chosen
from im_assets.scoring.scorer import embeddings_of
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

PER_MIXTURE = ["seed", "n_examples", "token_loss", "instruction_loss", "loss", "log_loss"]


@dg.asset(
    deps=["example_scores", "eval_losses"],
    **presentation("rule", {"sql", "duckdb"}),
)
def indicator_table(
    mixed_samples: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """One row a mixture: the mean of every indicator over its members, KNN over the mixture as a
    set, the evaluation loss and its logarithm. Aggregated in sql/indicator_table.sql."""
    indicators = chosen(study.scoring)
    sets = mixture_scores(mixed_samples, indicators, Models.of(study, gpu), warehouse)
    warehouse.replace_rows("mixture_scores", sets, where={})
    long = warehouse.query("indicator_table.sql", {"weighting": study.evaluation.weighting})
    # Rows of seeds that the profile no longer names stay in the warehouse, and are not the study's.
    long = long[long["seed"].isin(set(mixed_samples["seed"]))]
    table = one_row_a_mixture(long, [i.name for i in indicators])
    schema = dg.TableSchema([dg.TableColumn(str(c), str(t)) for c, t in table.dtypes.items()])
    metadata: dict[str, Any] = {
        "mixtures": len(table),
        "lowest loss": float(table["loss"].min()),
        "highest loss": float(table["loss"].max()),
        "table": preview(table, rows=20),
        "dagster/column_schema": schema,
    }
    return dg.Output(table, metadata=metadata)


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
