"""mixed_samples: the random mixtures, one partition a seed."""

import dagster as dg
import pandas as pd

from im_assets.catalog import presentation
from im_assets.mixtures.drawing import draw_mixture
from im_assets.partitions import Experiment, seed_of
from im_resources.study import Study

COLUMNS = {
    "seed": ("text", "Partition key of the mixture"),
    "position": ("bigint", "Place in the mixture, from 0"),
    "example_id": ("text", "Content hash of the example"),
    "source": ("text", "Candidate source it was drawn from"),
    "share": ("double", "The source's random weight r_i / Σr"),
}


def mixture_assets(experiment: Experiment) -> list[dg.AssetsDefinition]:
    """The assets of this room."""

    @dg.asset(
        partitions_def=experiment.partitions,
        **presentation("mixtures", {"python", "duckdb"}, COLUMNS, partition_column="seed"),
    )
    def mixed_samples(
        context: dg.AssetExecutionContext,
        candidate_datasets: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> pd.DataFrame:
        """Random mixtures of the candidate sources: a random weight per source, then examples
        without replacement. The same seed gives the same mixture on any machine."""
        mixtures = []
        for key in context.partition_keys:
            mixture = draw_mixture(candidate_datasets, seed_of(key), study.mixtures.size)
            counts = mixture["source"].value_counts().sort_index()
            sizes = {str(source): int(count) for source, count in counts.items()}
            context.add_asset_metadata(
                {
                    "examples": len(mixture),
                    "by source": dg.MetadataValue.json(sizes),
                },
                partition_key=key,
            )
            mixtures.append(mixture.assign(seed=key))
        return pd.concat(mixtures, ignore_index=True)

    return [mixed_samples]
