"""What a selection costs, its mining included: floating-point operations, and seconds as recorded.

Everything that an arm needs before its finetune is counted: the scores of the pool that its
strategy reads, and for what the study's own rule selects, the rule: the scores of the candidates,
the finetunes on mixtures and their evaluations. A selection that costs more than training on the
whole pool saves nothing, however good it is; from how large a pool on it does not is the break-even
size. Operations are those of ``im_resources.language_model.flops``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from im_assets.rule.target import PAPER, Target
from im_assets.scoring.registry import Indicator
from im_assets.validation.arms import BASE, FULL_POOL
from im_resources.language_model.flops import FlopsError, Load, Shape, training_flops
from im_resources.study import FinetuningSettings

COLUMNS = {
    "strategy": ("text", "Arm of the validation; base: the model without finetuning"),
    "size": ("bigint", "Examples finetuned on; 0 for the base"),
    "finetunes": ("bigint", "Finetunes behind the means"),
    "scoring_flop": ("double", "Operations of scoring the pool by what the strategy reads"),
    "rule_flop": ("double", "Operations behind the rule that it selects by: candidates' scores, "
                  "finetunes on mixtures, evaluations"),
    "selection_flop": ("double", "Both together"),
    "selection_seconds": ("double", "Seconds of the selection; null where they are not recorded"),
    "rule_seconds": ("double", "Recorded seconds of the finetunes behind the rule"),
    "training_flop": ("double", "Operations of one finetune on the selection, mean"),
    "training_seconds": ("double", "Recorded seconds of one finetune, mean"),
    "total_flop": ("double", "Selection and one finetune"),
    "break_even_examples": ("double", "Size of the pool from which on this costs less than "
                            "training on all of it; null: none is large enough"),
    "note": ("text", "What is not counted, or why something is null"),
}  # fmt: skip


@dataclass(frozen=True)
class Reads:
    """What a strategy reads of the pool.

    Attributes:
        passes: of each model over the pool, by ``base`` (prompt and response), ``responses`` (of
            the base, over responses alone), ``embedding``, ``reward`` or ``unieval``.
        rule: whether it selects by the study's own rule.
        scores: whether it reads any score or embedding at all.
        note: what more it may read.
    """

    passes: Counter[str] = field(default_factory=Counter)
    rule: bool = False
    scores: bool = False
    note: str = ""


def passes_of(indicators: Sequence[Indicator], embeds: bool = False) -> Counter[str]:
    """The passes that scoring an example by these indicators takes, as the scorer makes them.

    All that reads the base model reads the same pass; a second hidden layer takes another, and IFD
    one over the response alone. KNN-i's comparisons and what counts words are not counted.

    Args:
        embeds: the examples' embeddings are read beside.
    """
    passes: Counter[str] = Counter()
    by_base = [i.backend for i in indicators if "base" in i.backend.uses]
    if by_base:
        passes["base"] = max(1, len({b.layer for b in by_base if b.layer is not None}))
        passes["responses"] = sum(b.name == "ifd" for b in by_base)
    if embeds or any("embedding" in i.backend.uses for i in indicators):
        passes["embedding"] = 1
    for name in ("reward", "unieval"):
        passes[name] = sum(name in i.backend.uses for i in indicators)
    return +passes


def scoring_flop(passes: Counter[str], each: Mapping[str, float]) -> float:
    """Operations of some passes, by those of one of each kind; nan where one is not known."""
    return float(sum(count * each[name] for name, count in passes.items()))


def trial_costs(
    adapters: pd.DataFrame,
    members: pd.DataFrame,
    lengths: pd.DataFrame,
    column: str,
    shape: Shape,
    settings: FinetuningSettings,
) -> pd.DataFrame:
    """What each finetune cost: index partition key; flop, seconds.

    Args:
        adapters: the partition key (``column``), and tokens (as computed) and seconds as recorded.
        members: the partition key and example_id.
        lengths: index example_id; tokens, learned (those that the loss is over).

    Operations are nan where the trainer's are not known.
    """
    rows = members[[column, "example_id"]].merge(
        lengths, how="left", left_on="example_id", right_index=True
    )
    pairs = rows["tokens"] * (rows["tokens"] + 1) / 2
    sums = rows.assign(pairs=pairs).groupby(column)[["pairs", "learned"]].sum(min_count=1)
    trained = adapters.set_index(column)[["tokens", "seconds"]].join(sums)
    times = settings.epochs
    flops = []
    for tokens, row_pairs, learned in trained[["tokens", "pairs", "learned"]].to_numpy(float):
        load = Load(tokens, row_pairs * times, learned * times)
        try:
            flops.append(training_flops(shape, load, settings))
        except FlopsError:
            flops.append(np.nan)
    return pd.DataFrame({"flop": flops, "seconds": trained["seconds"].astype(float)})


def break_even(
    fixed: float, training: float, training_each: float, scoring_each: float
) -> float | None:
    """The pool size from which on mining, scoring and training on the selection costs less than
    training on the whole pool: (fixed + training) / (training_each - scoring_each).

    Args:
        fixed: of mining the rule, once.
        training: of the finetune on the selection.
        training_each: of training on one example of the pool, with all epochs.
        scoring_each: of scoring it.

    None where scoring an example costs as much as training on it, or something is not known.
    """
    saved = training_each - scoring_each
    if not (np.isfinite(fixed + training + saved) and saved > 0):
        return None
    return (fixed + training) / saved


@dataclass(frozen=True)
class Prices:
    """What there is to pay, in operations; nan where it is not known.

    Attributes:
        pool: examples of the unseen pool.
        each: of one pass of each model over the whole pool (see Reads).
        rule, rule_seconds: of the rule, once: operations of all, and the finetunes' seconds.
        rule_note: what is not counted of it.
        full: of training on the whole pool.
    """

    pool: int
    each: Mapping[str, float]
    rule: float
    rule_seconds: float
    full: float
    rule_note: str = ""


def selection_costs(
    runs: pd.DataFrame,
    trials: pd.DataFrame,
    reads: Mapping[str, Reads],
    prices: Prices,
    base: float | None,
    target: Target = PAPER,
) -> pd.DataFrame:
    """One row a strategy, or reference, and size, and the base; in the order of total operations.

    Args:
        runs: as ``validation_runs`` returns them.
        trials: as ``trial_costs`` returns them, of the runs' arms.
        reads: of each strategy; one that is not there reads nothing (random subsets).
        base: the target's measure of the base model; None: not known.

    Returns:
        ``COLUMNS``, with the target's measure (mean over finetunes) after ``finetunes``.
    """
    rows = [
        {
            "strategy": BASE, "size": 0, "finetunes": 0, target.measure: base,
            "scoring_flop": 0.0, "rule_flop": 0.0, "selection_flop": 0.0, "selection_seconds": 0.0,
            "rule_seconds": 0.0, "training_flop": 0.0, "training_seconds": 0.0, "total_flop": 0.0,
            "break_even_examples": None, "note": "not finetuned",
        }
    ]  # fmt: skip
    arms = runs[runs["kind"].isin(["strategy", "reference"]) & (runs["strategy"] != BASE)]
    for (name, size), arm in arms.groupby(["strategy", "size"], sort=False):
        read = reads.get(str(name), Reads())
        mine = trials.loc[arm["arm"]]
        scoring = scoring_flop(read.passes, prices.each)
        rule = prices.rule if read.rule else 0.0
        training = float(mine["flop"].mean())
        per_scored, per_trained = scoring / prices.pool, prices.full / prices.pool
        whole = name == FULL_POOL
        found = None if whole else break_even(rule, training, per_trained, per_scored)
        row = {
            "strategy": str(name), "size": prices.pool if whole else int(str(size)),
            "finetunes": len(arm),
            target.measure: float(arm[target.measure].mean()),
            "scoring_flop": scoring, "rule_flop": rule, "selection_flop": scoring + rule,
            "selection_seconds": None if read.scores or read.rule else 0.0,
            "rule_seconds": prices.rule_seconds if read.rule else 0.0,
            "training_flop": training, "training_seconds": float(mine["seconds"].mean()),
            "total_flop": scoring + rule + training, "break_even_examples": found,
        }  # fmt: skip
        unknown = sorted(k for k in read.passes if np.isnan(prices.each[k]))
        notes = [
            read.note,
            f"the operations of {', '.join(unknown)} are not known" if unknown else "",
            "seconds of scoring and evaluating are not recorded" if read.scores else "",
            prices.rule_note if read.rule else "",
            "scoring an example costs no less than training on it"
            if per_scored >= per_trained
            else "",
        ]
        rows.append(row | {"note": "; ".join(filter(None, notes))})
    order = list(COLUMNS)
    order.insert(3, target.measure)
    table = pd.DataFrame(rows)[order]
    numbers = [name for name in order if name not in ("strategy", "size", "finetunes", "note")]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    return table.sort_values(["total_flop", "strategy"], ignore_index=True)
