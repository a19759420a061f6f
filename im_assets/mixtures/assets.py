"""The mixtures' experiment (mixed_samples and its like), the series of their seeds, and
seed_design: which seeds tell most."""

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.candidates.versions import HISTORY, KEY, current_version
from im_assets.common.presentation import presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.mixtures.design import (
    d_optimal,
    expected_indicators,
    information,
    principal_directions,
    source_means,
)
from im_assets.mixtures.experiment import SERIES, mixture_experiment
from im_assets.mixtures.growing import grown_series
from im_assets.mixtures.leaning import PERCENTILES
from im_assets.mixtures.partitions import sync_partitions
from im_assets.scoring.batch import Models
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

RANDOM_DRAWS = 200
POOL = {"candidate_datasets": dg.AssetIn(metadata={"columns": KEY})}  # no text of it is read
SEEDS = {
    "seed": ("text", "Partition key"),
    "version": ("bigint", "The version of the candidate pool that the mixture is drawn from"),
    "refit": ("boolean", "Drawn from a later version of the pool; not named by the profile"),
    "retired": ("boolean", "Its mixture holds examples that the pool no longer holds"),
    "as_of": ("bigint", "The version of the pool that the series answers"),
    "number": ("bigint", "What the mixture's randomness is made from"),
    "tilt": (
        "text",
        "How far it leans to each indicator (JSON); null: all are as likely",
    ),
}


def mixture_seeds_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``mixture_seeds``: made from the pool, and of tilted mixtures from its scores."""
    tilted = study.mixtures.kind != "random"

    # No `reads`: more seeds are no change of those there are. A setting that an asset reads counts
    # in the code versions of all that follows.
    @dg.asset(
        name=SERIES,
        ins=POOL,
        deps=["example_scores"] if tilted else [],
        **presentation("mixtures", {"python", "duckdb"}, SEEDS),
    )
    def mixture_seeds(
        context: dg.AssetExecutionContext,
        candidate_datasets: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """The seeds of the mixtures: the profile's, and with each new version of the candidate pool
        some more, chosen to tell most beside those measured already (D-optimal). They are the
        partitions.

        A mixture that was finetuned on keeps the version of the pool that it was drawn from, unless
        it holds withdrawn examples: then it is retired. What was paid for is looked up in the
        warehouse: a dependency on it would be a circle."""
        grown = grown_series(study, warehouse, candidate_datasets, Models.of(study, gpu))
        if grown.unscored:
            names = ", ".join(grown.unscored)
            context.log.warning(f"nothing of {names} is scored: taken as average")
        if grown.percentiles is not None:
            warehouse.replace_table(PERCENTILES, grown.percentiles)
        series = grown.series
        keys = mixture_experiment(study).now({SERIES: series}).keys
        sync_partitions(context.instance, keys)
        return table(
            series,
            {
                "mixtures": len(keys),
                "new": grown.new,
                "retired": int(series["retired"].sum()),
                "pool version": current_version(warehouse.read_table(HISTORY)),
                "seeds": preview(series, rows=len(series)),
            },
        )

    return mixture_seeds


@dg.asset(
    ins=POOL,
    **presentation("mixtures", {"python", "duckdb"}, reads=("mixtures", "scoring.indicators")),
)
def seed_design(
    context: dg.AssetExecutionContext,
    candidate_datasets: pd.DataFrame,
    example_scores: pd.DataFrame,
    study: dg.ResourceParam[Study],
) -> dg.Output[pd.DataFrame]:
    """The most informative mixture seeds (D-optimal) among the first `mixtures.candidate_seeds`, as
    many as the study has. A proposal: paste it into the profile to finetune on these instead. How
    many random seeds they replace is at most what the metadata say: so many if the rule needs every
    direction in which mixtures can differ.

    Sources of which nothing is scored yet take the mean of all, with a warning."""
    sizes = candidate_datasets["source"].value_counts()
    held = {str(source): int(count) for source, count in sizes.items()}
    means, unscored = source_means(example_scores, candidate_datasets, sorted(held))
    if unscored:
        context.log.warning(f"nothing of {', '.join(unscored)} is scored: taken as average")
    count = len(study.mixtures.seed_numbers)
    seeds = range(max(count, study.mixtures.candidate_seeds))
    settings = study.mixtures
    expected = expected_indicators(held, means, seeds, settings.size, settings.shares)
    # All directions in which mixtures can differ at all; what is below is rounding.
    vectors = principal_directions(expected.to_numpy(), share=1 - 1e-9, most=count - 1)
    chosen = d_optimal(vectors, count, seed=0)
    rng = np.random.Generator(np.random.PCG64(0))
    draws = (rng.choice(len(vectors), count, replace=False) for _ in range(RANDOM_DRAWS))
    usual = float(np.median([information(vectors[rows]) for rows in draws]))
    # Without a usual value (singular random designs) there is nothing to compare with.
    worth = count * information(vectors[chosen]) / usual if usual > 0 else None
    proposal = expected.rename_axis("seed").reset_index().rename_axis(columns=None)
    proposal.insert(1, "chosen", np.isin(np.arange(len(vectors)), chosen))
    names = ", ".join(str(seed) for seed in proposal.loc[proposal["chosen"], "seed"])
    scored = candidate_datasets["example_id"].isin(example_scores["example_id"])
    scored_of = candidate_datasets.loc[scored, "source"].value_counts()
    return table(
        proposal,
        {
            "paste into the profile": dg.MetadataValue.md(
                f"```yaml\nmixtures:\n  seeds: [{names}]\n  size: {settings.size}\n"
                f"  shares: {settings.shares}\n```"
            ),
            "candidate seeds": len(proposal),
            "directions in which the mixtures differ": vectors.shape[1],
            # The determinant of X'X counts all directions alike; a rule needs some of them.
            "random seeds with the same information, at most": worth,
            "scored examples by source": dg.MetadataValue.json(
                {s: f"{int(scored_of.get(s, 0))} of {n}" for s, n in sorted(held.items())}
            ),
            "source means": preview(means.reset_index(), rows=len(means)),
            "dagster/column_schema": dg.TableSchema(
                [dg.TableColumn(str(c), str(t)) for c, t in proposal.dtypes.items()]
            ),
        },
    )


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room; none where nothing is finetuned."""
    if study.trains_nothing:
        return dg.Definitions()
    # Of tilted mixtures the design is `mixtures.kind: designed`.
    design = [seed_design] if study.mixtures.kind == "random" else []
    return dg.Definitions.merge(
        definitions_of(mixture_experiment(study), study),
        dg.Definitions(assets=[mixture_seeds_asset(study), *design]),
    )
