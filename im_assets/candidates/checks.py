"""Blocking checks: nothing is drawn, trained or measured on data that fails one of them."""

from collections.abc import Iterable

import dagster as dg
import pandas as pd

from im_assets.candidates.assets import eval_set
from im_assets.candidates.leaks import COPY, SHORT
from im_assets.common.tracking import tracked
from im_assets.common.words import words_of
from im_resources.spooled import Scratch
from im_resources.study import Study
from im_resources.turns import asked
from im_resources.warehouse import Warehouse


@dg.asset_check(
    asset="candidate_datasets",
    blocking=True,
    description="Every source of the profile has examples to draw from",
)
def no_empty_source(
    study: dg.ResourceParam[Study], warehouse: dg.ResourceParam[Warehouse]
) -> dg.AssetCheckResult:
    """Fails when a source of the profile has no row left, which would bias every mixture."""
    held = warehouse.query("SELECT DISTINCT source FROM candidate_datasets")["source"]
    empty = [s for s in study.data.candidates if s not in set(held)]
    return dg.AssetCheckResult(passed=not empty, metadata={"empty_sources": empty})


@dg.asset_check(
    asset=eval_set,
    blocking=True,
    description="There are instructions to measure on, each with outputs numbered from 0",
)
def eval_set_usable(eval_set: pd.DataFrame) -> dg.AssetCheckResult:
    """Fails on an empty set, an empty text, or outputs that are not numbered 0, 1, 2, …"""
    outputs = eval_set.groupby("eval_id")["output_index"].agg(["count", "nunique", "min", "max"])
    broken = outputs[
        (outputs["min"] != 0)
        | (outputs["max"] != outputs["count"] - 1)
        | (outputs["nunique"] != outputs["count"])
    ]
    texts = eval_set[["instruction", "output"]]
    blank = int((texts.isna() | texts.apply(lambda c: c.str.strip() == "")).any(axis=1).sum())
    return dg.AssetCheckResult(
        passed=len(outputs) > 0 and broken.empty and blank == 0,
        metadata={
            "instructions": len(outputs),
            "reference_outputs": len(eval_set),
            "fewest_outputs": int(outputs["count"].min()) if len(outputs) else 0,
            "instructions_with_broken_numbering": len(broken),
            "rows_with_blank_text": blank,
        },
    )


@dg.asset_check(
    asset="candidate_datasets",
    additional_ins={"eval_set": dg.AssetIn("eval_set")},
    blocking=True,
    description="No candidate holds a whole text of the evaluation set",
)
def candidates_do_not_leak(
    eval_set: pd.DataFrame,
    study: dg.ResourceParam[Study],
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.AssetCheckResult:
    """Fails when an example that mixtures draw from holds an evaluation text."""
    return _leak_result("candidate_datasets", eval_set, study, warehouse)


def pool_does_not_leak(pool: str) -> dg.AssetChecksDefinition:
    """The check of an unseen pool's asset that nothing in it leaks the evaluation set."""

    @dg.asset_check(
        asset=f"{pool}_dataset",
        # The name from when there was one pool, whose check results stand in its history.
        name="unseen_does_not_leak",
        additional_ins={"eval_set": dg.AssetIn("eval_set")},
        blocking=True,
        description="No unseen example holds a whole text of the evaluation set",
    )
    def check(
        eval_set: pd.DataFrame,
        study: dg.ResourceParam[Study],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.AssetCheckResult:
        """Fails when an example that could be selected holds an evaluation text."""
        return _leak_result(f"{pool}_dataset", eval_set, study, warehouse)

    return check


def leaking_examples(pool: Iterable[pd.DataFrame], evaluation: pd.DataFrame, n: int) -> list[str]:
    """The example_ids that hold a whole evaluation text, or nearly: ``COPY`` of its words, in runs
    of n, or the whole of a short prompt.

    Independent of the cleaning: it compares the words themselves, not their hashes.

    Args:
        pool: example_id, instruction, input, output, and turns where it has some; a part at a time.
    """
    texts = [words_of(text) for row in _texts(evaluation) for text in row]
    least = max(SHORT, n)
    short = {tuple(words) for words in texts[::2] if 0 < len(words) < least}  # of the prompts
    known: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, words in enumerate(texts):
        for start, run in enumerate(_runs(words, n) if len(words) >= least else []):
            known.setdefault(run, []).append((number, start))

    def copies(words: list[str]) -> bool:
        covered: dict[int, set[int]] = {}
        for run in set(_runs(words, n)) & known.keys():
            for number, start in known[run]:
                covered.setdefault(number, set()).update(range(start, start + n))
        return any(len(places) >= COPY * len(texts[k]) for k, places in covered.items())

    return [
        example
        for part in pool
        for example, row in zip(part["example_id"], _texts(part), strict=True)
        if tuple(words_of(row[0])) in short or any(copies(words_of(text)) for text in row)
    ]


def _leak_result(
    asset: str, evaluation: pd.DataFrame, study: Study, warehouse: Warehouse
) -> dg.AssetCheckResult:
    n, scratch = study.cleaning.leak_ngram, Scratch(study.folder / "scratch")
    # Not from the warehouse itself, which nobody could write to meanwhile.
    texts = warehouse.spooled(scratch.folder / "texts", "texts_of.sql", {"pool": asset})
    parts = tracked(texts.tables(), "looking for leaks", "files", len(texts.files))
    leaking = leaking_examples((part.to_pandas() for part in parts), evaluation, n)
    scratch.remove()
    return dg.AssetCheckResult(
        passed=not leaking,
        metadata={"leaking": len(leaking), "first_example_ids": leaking[:10], "words": n},
    )


def _texts(frame: pd.DataFrame) -> list[tuple[str, str]]:
    prompts = map(asked, frame.to_dict("records"))
    return list(zip(prompts, frame["output"], strict=True))


def _runs(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
