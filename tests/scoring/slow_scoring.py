"""``python -m tests.scoring.slow_scoring WAREHOUSE``: a scoring run slow enough to be killed."""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import chosen, indicator
from im_assets.scoring.scorer import KEY, score_missing
from im_resources.warehouse import Warehouse
from tests.scoring.demo_models import demo_study, models_of, sample

pause = 0.0


@indicator("slow_words", version=1)
def slow_words(batch: ScoringBatch) -> np.ndarray:
    time.sleep(pause)
    return np.array([len(text.split()) for text in batch.examples["output"]])


def score(path: Path) -> tuple[pd.DataFrame, int]:
    study = demo_study({"words": "slow_words", "mtld": "mtld"}, chunk=5)
    indicators = chosen(study.scoring)
    return score_missing(sample("terse", 60), indicators, models_of(study), Warehouse(path))


def scored(folder: Path) -> str:
    """The scores and the cache of a run into ``folder``, as bytes of CSV would tell them."""
    scores, _ = score(folder / "scores.duckdb")
    cache = Warehouse(folder / "scores.duckdb").read_table("score_cache")
    return scores.to_csv() + cache.sort_values(KEY).to_csv(index=False)


if __name__ == "__main__":
    pause = 0.5
    score(Path(sys.argv[1]))
