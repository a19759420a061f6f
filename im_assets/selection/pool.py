"""The unseen pool as a selection strategy sees it: texts, indicators, embeddings and the rule."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from im_assets.candidates.content import example_id
from im_assets.candidates.tracing import OWN_ID
from im_assets.experiments.experiment import Drawing
from im_assets.experiments.points import values_fingerprint
from im_assets.rule.document import load_rule
from im_assets.rule.model import Rule
from im_assets.rule.ready import set_size
from im_assets.scoring.batch import Models
from im_assets.scoring.cached import loader
from im_assets.scoring.cuts import cuts_of
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import Indicator, chosen, set_level
from im_assets.selection.registry import strategy_of
from im_assets.selection.selecting import SelectionError
from im_resources.study import StrategySettings, Study, did_you_mean, fingerprint
from im_resources.warehouse import Warehouse

TEXTS = ("instruction", "input", "output", "turns")
# How a pool is read (see the IO manager) where no text of most of it is looked at: what quotas and
# strata go by, as few bytes as it takes.
SLIM: dict[str, Any] = {
    "without": [*TEXTS, "file", "line", OWN_ID],
    "categories": ["source", "category", "language"],
}
# The column of <pool>_indicators with what it was made by, the same in all rows.
MADE_BY = "made_by"


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
        some_embeddings: gives the vectors of some positions [rows, dimensions] without reading
            all; default: from ``embeddings``.
        load: gives the whole rows of some example_ids, where ``examples`` is without the texts.
        embed: gives unit vectors of texts [texts, dimensions / 2] in the space of the embeddings,
            of which one half is an example's prompt and the other its response.
        evaluated: gives the ids (see cleaning.example_id) of what the evaluation set asks,
            instruction and input; read only when asked for.
        tokens: gives how many tokens of each example are trained on, prompt and response as cut,
            int64 [examples]; counted only when asked for.
    """

    examples: pd.DataFrame
    indicators: pd.DataFrame
    rule: Rule
    embeddings: Callable[[], np.ndarray]
    set_size: int
    set_level: frozenset[str] = frozenset()
    some_embeddings: Callable[[np.ndarray], np.ndarray] | None = None
    load: Callable[[list[str]], pd.DataFrame] | None = None
    embed: Callable[[list[str]], np.ndarray] | None = None
    evaluated: Callable[[], frozenset[str]] = frozenset
    tokens: Callable[[], np.ndarray] | None = None

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
        return np.lexsort((self._by_id, values))

    @cached_property
    def _by_id(self) -> np.ndarray:
        """The place of each example in the order of the ids, [examples]."""
        order = pc.sort_indices(pa.array(self.examples["example_id"], pa.string())).to_numpy()
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        return places

    def rows(self, positions: np.ndarray) -> pd.DataFrame:
        """The examples at some positions with their texts, in that order."""
        some = self.examples.iloc[positions]
        return some if self.load is None else self.load(some["example_id"].tolist())

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """The unit vectors of some positions, float32 [rows, dimensions]."""
        if self.some_embeddings is not None:
            return self.some_embeddings(positions)
        return self.embeddings()[positions]

    def part(self, positions: np.ndarray) -> "Pool":
        """The pool of the examples at some positions alone, in that order."""
        return replace(
            self,
            examples=self.examples.iloc[positions].reset_index(drop=True),
            indicators=self.indicators.iloc[positions],
            embeddings=cache(lambda: self.vectors(positions)),
            some_embeddings=lambda some: self.vectors(positions[some]),
            tokens=None if self.tokens is None else cache(lambda: self._tokens(positions)),
        )

    def _tokens(self, positions: np.ndarray) -> np.ndarray:
        assert self.tokens is not None
        return self.tokens()[positions]


def pool_of(name: str, drawing: Drawing) -> Pool:
    """An unseen pool of the study, from its dataset, its indicators and the rule.

    Raises SelectionError when the indicators are not those of the pool, the profile and the rule as
    they are now: ranked by a rule of other ones, the pool would look chosen and be chance.
    """
    dataset, table = (drawing.tables[f"{name}_{kind}"] for kind in ("dataset", "indicators"))
    study, models = drawing.study, drawing.models
    ids = dataset["example_id"].tolist()
    rule = load_rule(drawing.tables["quality_rule"])
    if study.rule.source == "fitted" and rule.values_id not in (
        "",
        values_fingerprint(chosen(study.scoring), study, models),
    ):
        raise SelectionError(
            f"the rule {rule.id} was fitted on indicators or measures of another version than the "
            "profile's; materialize indicator_table and quality_rule first"
        )
    indicators = table.set_index("example_id")
    if set(indicators.pop(MADE_BY).unique()) != {indicators_id(rule, study, models)}:
        raise SelectionError(
            f"{name}_indicators was made for another rule, or by another version of the "
            f"indicators; materialize {name}_indicators again"
        )
    examples = pd.Index(ids, name="example_id")
    if indicators.index.equals(examples):  # as they are stored: no example has to be looked for
        return pool_with(dataset, f"{name}_dataset", indicators.set_axis(examples), rule, drawing)
    places = indicators.index.get_indexer(examples)
    if lacking := int((places < 0).sum()):
        raise SelectionError(
            f"{name}_indicators lacks {lacking} of the pool's {len(ids)} examples; materialize "
            f"{name}_indicators again"
        )
    return pool_with(dataset, f"{name}_dataset", indicators.iloc[places], rule, drawing)


def pool_with(
    examples: pd.DataFrame, asset: str, indicators: pd.DataFrame, rule: Rule, drawing: Drawing
) -> Pool:
    """A pool as strategies see it, from its parts.

    Args:
        examples: those that can be selected, as ``Pool.examples``; without texts these are read
            from ``asset``, the table that they are of.
        indicators: of the examples, in their order.
    """
    study, models, warehouse = drawing.study, drawing.models, drawing.warehouse
    ids = examples["example_id"].tolist()
    load = None if "output" in examples else loader(asset, warehouse)
    everything = cache(lambda: embeddings_of(ids, models, warehouse))

    def some(positions: np.ndarray) -> np.ndarray:
        if everything.cache_info().currsize:
            return np.array(everything()[positions])
        return embeddings_of([ids[position] for position in positions], models, warehouse)

    return Pool(
        examples=examples.reset_index(drop=True),
        indicators=indicators,
        rule=rule,
        embeddings=everything,
        set_size=set_size(rule, study),
        set_level=frozenset(indicator.name for indicator in set_level(study.scoring)),
        some_embeddings=some,
        load=load,
        embed=models.embed,
        evaluated=lambda: evaluated_in(warehouse),
        tokens=cache(lambda: tokens_of(examples, load, models, warehouse)),
    )


def tokens_of(
    examples: pd.DataFrame,
    load: Callable[[list[str]], pd.DataFrame] | None,
    models: Models,
    warehouse: Warehouse,
) -> np.ndarray:
    """Tokens of each example as it is trained on, int64 [examples] (see ``cuts_of``)."""
    return cuts_of(examples, models, warehouse, load)["tokens"].to_numpy()


def evaluated_in(warehouse: Warehouse) -> frozenset[str]:
    """The ids of what the study's evaluation set asks; of a study without one, none."""
    if not warehouse.has_table("eval_set"):
        return frozenset()
    asked = warehouse.read_table("eval_set", ["instruction", "input"]).drop_duplicates()
    pairs = zip(asked["instruction"], asked["input"], strict=True)
    return frozenset(example_id(*pair) for pair in pairs)


def read_by(rule: Rule, study: Study) -> frozenset[str] | None:
    """The indicators that the rule or a strategy for the unseen pools reads; None: any, since a
    plugin's strategy reads what it likes."""
    compared = study.validation.strategies.values() if study.validation else ()
    return read_by_strategies(rule, study.selection, *compared)


def read_by_strategies(rule: Rule, *strategies: StrategySettings) -> frozenset[str] | None:
    """The indicators that the rule or one of the strategies reads; None: any."""
    read = set(rule.indicators)
    for settings in strategies:
        if is_plugin(settings):
            return None
        found, options = strategy_of(settings)
        read |= {*found.needs, str(options.get("indicator"))}
    return frozenset(read)


def is_plugin(settings: StrategySettings) -> bool:
    """Whether the strategy is a user's own: it reads what it likes of the pool."""
    return not strategy_of(settings)[0].choose.__module__.startswith("im_assets.")


def indicators_id(rule: Rule, study: Study, models: Models) -> str:
    """What a pool's indicators depend on beside its examples: their versions; and the rule, which
    says of which set-level ones there are values, and for sets of which size.

    The whole of it, so that what is made from the indicators is made anew with every rule.
    """
    wanted = _of_a_pool(study, read_by(rule, study))
    versions = [(indicator.name, indicator.fingerprint(models)) for indicator in wanted]
    return fingerprint("pool", rule.id, set_size(rule, study), versions)


def _of_a_pool(study: Study, read: Collection[str] | None) -> list[Indicator]:
    """Every indicator of an example, and of the set-level ones those that are read (None: all)."""
    return [
        indicator
        for indicator in chosen(study.scoring)
        if indicator.backend.scope == "example" or read is None or indicator.name in read
    ]


def pool_indicators(
    ids: list[str],
    scores: pd.DataFrame | np.ndarray,
    study: Study,
    embeddings: Callable[[], np.ndarray],
    size: int | None = None,
    versions: Mapping[str, str] | None = None,
    read: Collection[str] | None = None,
) -> pd.DataFrame:
    """Every indicator of the examples ``ids``: index example_id, one column an indicator.

    A set-level indicator is what the example would have in a random mixture of ``size`` (default:
    the study's; see Indicator.expected), the scale on which the rule was fitted.

    Args:
        scores: example_id, indicator, value; and fingerprint, where ``versions`` are given. Or the
            values themselves, float64 [examples, indicators], nan where there is none: of the
            study's indicators of an example, in order.
        embeddings: gives the examples' unit vectors [examples, dimensions], where they are needed.
        versions: the fingerprint that counts, by the indicator's name; None: any.
        read: the set-level indicators that somebody reads, which cost time; None: all.

    Raises SelectionError when an example lacks a score.
    """
    columns: dict[str, np.ndarray] = {}
    order = pd.Index(ids, name="example_id")
    for number, indicator in enumerate(of_examples(study)):
        name = indicator.name
        if isinstance(scores, np.ndarray):
            columns[name] = scores[:, number]
        else:
            version = None if versions is None else versions[name]
            columns[name] = _scores_of(name, scores, order, version)
    for indicator in _of_a_pool(study, read):
        name = indicator.name
        if indicator.backend.scope == "example":
            values = columns.pop(name)  # which puts it in its place
            if lacking := int(np.isnan(values).sum()):
                raise SelectionError(
                    f"{name} is not scored, or was scored by another version of it, for "
                    f"{lacking} of the pool's {len(ids)} examples; materialize the pool's scores "
                    "again"
                )
            columns[name] = values
        else:
            columns[name] = indicator.expected(embeddings(), size or study.mixtures.size)
    return pd.DataFrame(columns, index=order).astype(np.float64)


def of_examples(study: Study) -> list[Indicator]:
    """The study's indicators of single examples, in order."""
    return [i for i in chosen(study.scoring) if i.backend.scope == "example"]


def _scores_of(name: str, scores: pd.DataFrame, order: pd.Index, version: str | None) -> np.ndarray:
    """An indicator of the examples in ``order``, nan where there is none (of this version)."""
    mine = (scores["indicator"] == name).to_numpy()
    if version is not None:
        mine &= (scores["fingerprint"] == version).to_numpy()
    places = order.get_indexer(pd.Index(scores["example_id"].array[mine]).astype(object))
    values = np.full(len(order), np.nan)
    values[places[places >= 0]] = scores["value"].to_numpy(dtype=float)[mine][places >= 0]
    return values
