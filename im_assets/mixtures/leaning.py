"""The scored candidates that tilted mixtures are drawn from, one version of the pool at a time.

A mixture that was finetuned on has to be drawn again as it was, whatever the pool becomes. So the
percentiles that normal scores are read off are kept with each version of the pool: examples that
came later do not move them, and one that was withdrawn and was in no set leaves the others where
they were.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from im_assets.candidates.versions import current_version, held_in
from im_assets.common.digests import uniform
from im_assets.experiments.experiment import some
from im_assets.experiments.lineage import LineageError
from im_assets.mixtures.tilting import (
    FINGERPRINT,
    INDICATOR,
    LEVEL,
    VERSION,
    Tilt,
    inclusion,
    log_weights,
    normal_scores,
    percentiles,
    random_tilt,
)
from im_assets.rule.transform import Transform, transformed
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import IndicatorError, chosen
from im_resources.study import MixtureSettings, Study, fingerprint
from im_resources.warehouse import Warehouse

PERCENTILES = "mixture_percentiles"  # a table that mixture_seeds writes beside itself


def tilted_indicators(study: Study) -> list[str]:
    """The indicators that tilted mixtures lean on.

    Raises IndicatorError for one that is a property of sets.
    """
    own = [i.name for i in chosen(study.scoring) if i.backend.scope == "example"]
    wanted = study.mixtures.tilt or own
    if sets := [name for name in wanted if name not in own]:
        raise IndicatorError(
            f"mixtures.tilt: {', '.join(sets)} is a property of sets, by which no example can be "
            f"drawn; examples have: {', '.join(own)}"
        )
    return list(wanted)


def tilt_of(number: int, names: Sequence[str], settings: MixtureSettings) -> dict[str, float]:
    """theta of the mixture with this number: of tilted ones as long as the profile says, of those
    that a design is chosen from any length up to that."""
    share = 1.0 if settings.kind == "tilted" else uniform(number, "strength")
    return random_tilt(number, names, settings.strength * share)


def drawn_by(study: Study) -> list[str]:
    """What tilted mixtures are drawn by, beside their own settings: the indicators' backends; an
    empty list for random ones, which need nothing."""
    if study.mixtures.kind == "random":
        return []
    names = tilted_indicators(study)
    of = {i.name: i.backend for i in chosen(study.scoring)}
    options = study.scoring.indicators
    return [fingerprint(n, of[n].name, of[n].version, options[n].options) for n in sorted(names)]


@dataclass(frozen=True)
class ScoredPool:
    """The examples of a version of the pool that are scored, each once.

    Attributes:
        examples: columns example_id, source.
        leaning: normal scores of the tilted indicators [examples], by name.
        values: all indicators of an example on the rule's scale [examples], by name.
    """

    examples: pd.DataFrame
    leaning: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]

    def log_weights(self, tilt: Tilt) -> np.ndarray:
        """What a mixture with this tilt draws by (see ``draw_mixtures``)."""
        return log_weights(tilt, self.leaning)

    def expected(
        self, tilts: Mapping[int, Tilt]
    ) -> Callable[[int, Mapping[str, int]], pd.DataFrame]:
        """The means over the sources that a mixture's examples are expected to have (see
        ``expected_indicators``), with the number of each source's examples that it draws."""
        by_source = {
            str(source): np.asarray(places)
            for source, places in self.examples.groupby("source").indices.items()
        }
        values = pd.DataFrame(dict(self.values))

        def means(number: int, counts: Mapping[str, int]) -> pd.DataFrame:
            weights = self.log_weights(tilts[number])
            found = {}
            for source, places in by_source.items():
                # A source that gives none has means all the same: of one example.
                chance = inclusion(weights[places], max(1, counts.get(source, 0)))
                found[source] = chance @ values.to_numpy()[places] / chance.sum()
            return pd.DataFrame.from_dict(found, orient="index", columns=values.columns)

        return means


def kept_percentiles(
    study: Study, warehouse: Warehouse, history: pd.DataFrame, scores: pd.DataFrame, models: Models
) -> pd.DataFrame:
    """The percentiles of every version of the pool that are known, and those of the newest one.

    Args:
        history: of the pool (see candidates.versions).
        scores: example_scores, those of the newest version.

    Returns: pool_version, indicator, fingerprint (of the indicator), level, value. Of indicators of
        another version than now nothing is kept: they would draw other mixtures. What is not known
        of an earlier version of the pool is found from those of its examples that are scored.

    Raises LineageError when some example of the pool is not scored as the profile says.
    """
    names = tilted_indicators(study)
    wanted = {i.name: i.fingerprint(models) for i in chosen(study.scoring) if i.name in names}
    mine = scores[scores[INDICATOR].isin(names)].astype(
        {"example_id": str, INDICATOR: str, FINGERPRINT: str}
    )
    mine = mine[mine[FINGERPRINT] == mine[INDICATOR].map(wanted)]
    newest, rows = current_version(history), []
    if warehouse.has_table(PERCENTILES):
        kept = warehouse.read_table(PERCENTILES)
        rows.append(kept[kept[FINGERPRINT] == kept[INDICATOR].map(wanted)])
    known = set() if not rows else set(zip(rows[0][VERSION], rows[0][INDICATOR], strict=True))
    for version in range(1, newest + 1):
        lacking = [name for name in names if (version, name) not in known]
        if not lacking:
            continue
        held = set(held_in(history, version)["example_id"])
        there = mine[mine[INDICATOR].isin(lacking) & mine["example_id"].isin(held)]
        if version == newest:
            _require_scores(there, lacking, held)
        if there.empty:  # nothing of that version is left
            continue
        rows.append(percentiles(there).assign(**{VERSION: version}))
    found = pd.concat(rows, ignore_index=True)[[VERSION, INDICATOR, FINGERPRINT, LEVEL, "value"]]
    return found.sort_values([VERSION, INDICATOR, LEVEL], ignore_index=True)


def _require_scores(scores: pd.DataFrame, names: Sequence[str], held: set[str]) -> None:
    """Raise LineageError when some example of the pool lacks a score."""
    for name in names:
        scored = scores.loc[scores[INDICATOR] == name, "example_id"]
        if left := sorted(held - set(scored)):
            raise LineageError(
                f"{name} is not scored, or was scored by another version of it, for {len(left)} "
                f"of {len(held)} candidates ({some(left)}); materialize example_scores first"
            )


def scored_pool(
    pool: pd.DataFrame, scores: pd.DataFrame, kept: pd.DataFrame, transform: Transform
) -> ScoredPool:
    """The examples of ``pool`` that have a score of every tilted indicator.

    Args:
        pool: columns example_id and source, of one version.
        scores: example_scores.
        kept: the percentiles of that version.
    """
    tilted = list(dict.fromkeys(kept[INDICATOR].astype(str)))
    ids = pd.Index(pool["example_id"].astype(str))
    values = {
        str(name): mine.set_index(mine["example_id"].astype(str))["value"].reindex(ids).to_numpy()
        for name, mine in scores.groupby(INDICATOR, observed=True)
    }
    if lacking := [name for name in tilted if name not in values]:
        raise LineageError(
            f"example_scores has nothing of {', '.join(lacking)}; materialize it again"
        )
    there = ~np.any([np.isnan(values[name]) for name in tilted], axis=0)
    of = {str(name): part["value"].to_numpy() for name, part in kept.groupby(INDICATOR)}
    return ScoredPool(
        pool.loc[there, ["example_id", "source"]].reset_index(drop=True),
        {name: normal_scores(values[name][there], of[name]) for name in tilted},
        {name: transformed(found[there], transform) for name, found in values.items()},
    )
