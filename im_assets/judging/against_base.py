"""Finetuned models against their base: who answers better, judged as any two models are."""

from collections.abc import Callable

import pandas as pd

from im_assets.judging.asking import Asked, ask_all
from im_assets.judging.comparing import PROMPT_VERSION
from im_assets.judging.verdicts import judged_pairs, orders
from im_resources.judge import Endpoint, LocalJudge
from im_resources.study import fingerprint
from im_resources.turns import TURNS
from im_resources.warehouse import Warehouse

FINETUNED, BASE = "finetuned", "base"


def verdicts_against_base(
    answers: pd.DataFrame,
    base_answers: pd.DataFrame,
    judge: Endpoint | LocalJudge,
    warehouse: Warehouse,
    on_verdict: Callable[[int], None] | None = None,
) -> tuple[pd.DataFrame, Asked]:
    """Each answer against the base model's to the same instruction, asked about in both orders.

    The same answer twice is a tie, without asking. Verdicts are cached by the texts, so that models
    which answer alike are judged once.

    Args:
        answers: eval_id, instruction, input (and turns), response, fingerprint, of one finetune or
            of many; further columns are kept.
        base_answers: eval_id, response, fingerprint.
        judge: who is asked.
        on_verdict: called after each new verdict with how many there are.

    Returns:
        ``answers`` without the texts, with order_1, order_2 (finetuned, base or tie), outcome (win,
        tie or lose of the finetuned model; null: not judged), position_bias, problem, judge,
        judge_id, and the fingerprint of all that the verdict depends on; and where the verdicts
        are from.

    Raises:
        JudgeError: the judge cannot be asked, or its budget is spent.
        ValueError: the base model did not answer one of the instructions.
    """
    base = base_answers[["eval_id", "response", "fingerprint"]]
    base = base.rename(columns={"response": "second_answer", "fingerprint": "base_fingerprint"})
    pairs = answers.rename(columns={"response": "first_answer"})
    pairs = pairs.merge(base, on="eval_id", how="left", validate="many_to_one")
    if lacking := pairs.loc[pairs["second_answer"].isna(), "eval_id"].unique().tolist():
        raise ValueError(
            f"no answer of the base model to {', '.join(lacking[:5])}: materialize base_answers "
            "again"
        )
    same = pairs["first_answer"] == pairs["second_answer"]
    different = pairs[~same].reset_index(drop=True)
    comparisons = [c for pair in different.to_dict("records") for c in orders(pair)]
    asked = ask_all(comparisons, judge, warehouse, on_verdict)
    judged = judged_pairs(different, asked.verdicts, FINETUNED, BASE)
    equal = pairs[same].assign(
        order_1="tie", order_2="tie", outcome="tie", position_bias=False, problem=None
    )
    # Typed as objects on both sides: a column of nulls alone would have no type of its own.
    columns = ["order_1", "order_2", "outcome", "position_bias", "problem"]
    parts = [part.astype(dict.fromkeys(columns, object)) for part in (judged, equal) if len(part)]
    table = pd.concat(parts, ignore_index=True)
    table["judge"], table["judge_id"] = judge.name, judge.fingerprint
    table["fingerprint"] = [
        fingerprint(mine, theirs, judge.fingerprint, PROMPT_VERSION)
        for mine, theirs in zip(table["fingerprint"], table["base_fingerprint"], strict=True)
    ]
    texts = ["instruction", "input", "first_answer", "second_answer", "base_fingerprint"]
    return table.drop(columns=[*texts, *table.columns.intersection([TURNS])]), asked
