"""The unseen pool as a selection strategy sees it: texts, indicators, embeddings and the rule."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from im_assets.experiments.experiment import Drawing
from im_assets.experiments.points import values_fingerprint
from im_assets.rule.document import load_rule
from im_assets.rule.model import Rule
from im_assets.rule.ready import set_size
from im_assets.scoring.batch import Models
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import chosen, set_level
from im_assets.selection.selecting import SelectionError
from im_resources.study import Study, did_you_mean
from im_resources.warehouse import Warehouse


@dataclass(frozen=True)
class Pool:
    """The pool that is selected from.

    Attributes:
        examples: example_id, instruction, input, output, turns where some are conversations, and
            source and category where known; each example_id once.
        indicators: index example_id in the order of ``examples``; one column an indicator. A
            set-level one (KNN-i) is here what the example would have in a random mixture.
        rule: the fitted or published rule that quality_rule holds.
        embeddings: gives unit vectors, float32 [examples, dimensions]; read only when asked for.
        set_size: examples of the mixtures that the rule was fitted on.
        set_level: those of the indicators that are properties of a set.
    """

    examples: pd.DataFrame
    indicators: pd.DataFrame
    rule: Rule
    embeddings: Callable[[], np.ndarray]
    set_size: int
    set_level: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.examples)

    def column(self, name: str) -> np.ndarray:
        """An indicator, float64 [examples]. Raises SelectionError when the pool lacks it."""
        if name not in self.indicators:
            known = list(map(str, self.indicators.columns))
            raise SelectionError(
                f"the pool has no indicator {name!r}{did_you_mean(name, known)}; "
                f"it has: {', '.join(known) or 'none'}"
            )
        return self.indicators[name].to_numpy(dtype=float)

    def ranked(self, values: np.ndarray) -> np.ndarray:
        """All positions by ``values`` [examples], lowest first; ties by example_id."""
        ids = self.examples["example_id"].to_numpy(dtype=str)
        return np.lexsort((ids, values))


def pool_of(name: str, drawing: Drawing) -> Pool:
    """An unseen pool of the study, from its dataset, its scores and the rule.

    Raises SelectionError when an example lacks a score, or when scores and rule are not of the same
    indicators: ranked by a rule of other indicators, the pool would look chosen and be chance.
    """
    dataset, scores = (drawing.tables[f"{name}_{kind}"] for kind in ("dataset", "scores"))
    study, models, warehouse = drawing.study, drawing.models, drawing.warehouse
    ids = dataset["example_id"].tolist()
    indicators = chosen(study.scoring)
    now = {i.name: i.fingerprint(models) for i in indicators}
    scores = scores[scores["fingerprint"] == scores["indicator"].map(now)]
    rule = load_rule(drawing.tables["quality_rule"])
    if study.rule.source == "fitted" and rule.values_id not in (
        "",
        values_fingerprint(indicators, study, models),
    ):
        raise SelectionError(
            f"the rule {rule.id} was fitted on indicators or measures of another version than the "
            "profile's; materialize indicator_table and quality_rule first"
        )
    size = set_size(rule, study)
    return Pool(
        examples=dataset.reset_index(drop=True),
        indicators=pool_indicators(ids, scores, study, models, warehouse, size),
        rule=rule,
        embeddings=cache(lambda: embeddings_of(ids, models, warehouse)),
        set_size=size,
        set_level=frozenset(indicator.name for indicator in set_level(study.scoring)),
    )


def pool_indicators(
    ids: list[str],
    scores: pd.DataFrame,
    study: Study,
    models: Models,
    warehouse: Warehouse,
    size: int | None = None,
) -> pd.DataFrame:
    """Every indicator of the examples ``ids``: index example_id, one column an indicator.

    A set-level indicator is what the example would have in a random mixture of ``size`` (default:
    the study's; see Indicator.expected), the scale on which the rule was fitted.

    Raises SelectionError when an example lacks a score.
    """
    wide = scores.pivot(index="example_id", columns="indicator", values="value").reindex(ids)
    columns = {}
    for indicator in chosen(study.scoring):
        if indicator.backend.scope == "example":
            values = wide.get(indicator.name, pd.Series(np.nan, wide.index))
            if lacking := int(values.isna().sum()):
                raise SelectionError(
                    f"{indicator.name} is not scored, or was scored by another version of it, for "
                    f"{lacking} of the pool's {len(ids)} examples; materialize the pool's scores "
                    "again"
                )
            columns[indicator.name] = values.to_numpy()
        else:
            vectors = embeddings_of(ids, models, warehouse)
            columns[indicator.name] = indicator.expected(vectors, size or study.mixtures.size)
    return pd.DataFrame(columns, index=wide.index).astype(np.float64)
