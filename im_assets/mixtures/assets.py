"""The mixtures' experiment (mixed_samples and its like), and seed_design: which seeds tell most."""

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.common.presentation import presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.mixtures.design import (
    d_optimal,
    expected_indicators,
    information,
    principal_directions,
)
from im_assets.mixtures.experiment import mixture_experiment
from im_resources.study import Study

RANDOM_DRAWS = 200


@dg.asset(
    **presentation("mixtures", {"python", "duckdb"}, reads=("mixtures", "scoring.indicators"))
)
def seed_design(
    context: dg.AssetExecutionContext,
    candidate_datasets: pd.DataFrame,
    example_scores: pd.DataFrame,
    study: dg.ResourceParam[Study],
) -> dg.Output[pd.DataFrame]:
    """The most informative mixture seeds (D-optimal) among the first `mixtures.candidate_seeds`, as
    many as the study has. A proposal: paste it into the profile to finetune on these instead.

    Sources of which nothing is scored yet take the mean of all, with a warning."""
    scored = example_scores.merge(candidate_datasets[["example_id", "source"]], on="example_id")
    means = scored.pivot_table(index="source", columns="indicator", values="value", aggfunc="mean")
    sizes = candidate_datasets["source"].value_counts()
    held = {str(source): int(count) for source, count in sizes.items()}
    means = means.reindex(pd.Index(sorted(held), name="source"))
    if unscored := list(means.index[means.isna().any(axis=1)]):
        context.log.warning(f"nothing of {', '.join(unscored)} is scored: taken as average")
        means = means.fillna(scored.groupby("indicator")["value"].mean())
    count = len(study.mixtures.seed_numbers)
    seeds = range(max(count, study.mixtures.candidate_seeds))
    expected = expected_indicators(held, means, seeds, study.mixtures.size)
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
    scored_of = scored.groupby("source")["example_id"].nunique()
    return table(
        proposal,
        {
            "paste into the profile": dg.MetadataValue.md(
                f"```yaml\nmixtures:\n  seeds: [{names}]\n  size: {study.mixtures.size}\n```"
            ),
            "candidate seeds": len(proposal),
            "directions in which the mixtures differ": vectors.shape[1],
            "random seeds with the same information": worth,
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
    """The assets and checks of this room."""
    return dg.Definitions.merge(
        definitions_of(mixture_experiment(study), study), dg.Definitions(assets=[seed_design])
    )
