"""What two finetuned models answer to the evaluation instructions."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from im_resources.gpu import GpuResource
from im_resources.language_model.template_registry import template_key
from im_resources.study import JudgeSettings, Study, fingerprint
from im_resources.warehouse import Warehouse

# Changes when the same adapter would give another answer.
CODE_VERSION = 1


def asked_instructions(eval_set: pd.DataFrame, settings: JudgeSettings) -> pd.DataFrame:
    """The first instructions of the evaluation set: eval_id, instruction, input, one row each."""
    rows = eval_set.drop_duplicates("eval_id").head(settings.instructions)
    return rows[["eval_id", "instruction", "input"]].reset_index(drop=True)


def answers_fingerprint(adapter: str, instructions: pd.DataFrame, study: Study) -> str:
    """Everything that changes the answers: the adapter (its fingerprint covers the base), the
    instructions, prompt, lengths, and the batches, whose padding rounds otherwise."""
    assert study.judge is not None
    models = study.models
    return fingerprint(
        CODE_VERSION,
        adapter,
        instructions[["eval_id", "instruction", "input"]].to_numpy().tolist(),
        template_key(models.prompt),
        models.max_length,
        study.judge.answer_tokens,
        study.evaluation.tokens_per_batch,
    )


def answer_all(
    folders: Mapping[str, Path],
    instructions: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    on_batch: Callable[[str, int, int, int], None] | None = None,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (partition, its answers) for every adapter folder, as they finish.

    The answers have the columns eval_id, answer, tokens (generated), complete (ended by itself).
    """
    from im_resources.language_model.finetuned import load_finetuned
    from im_resources.language_model.generation import greedy_answers
    from im_resources.language_model.prompts import encode
    from im_resources.language_model.side_by_side import run_side_by_side

    assert study.judge is not None
    new_tokens, base = study.judge.answer_tokens, gpu.base_model(study)
    prompts = [
        encode(
            base.tokenizer,
            study.models.prompt,
            str(row.instruction),
            str(row.input),
            [],
            study.models.max_length,
        ).prompt
        for row in instructions.itertuples()
    ]

    def one(partition: str) -> pd.DataFrame:
        model = load_finetuned(base, folders[partition])
        report = None if on_batch is None else lambda *done: on_batch(partition, *done)
        answers = greedy_answers(
            model,
            base.tokenizer,
            prompts,
            new_tokens,
            study.evaluation.tokens_per_batch,
            report,
        )
        return pd.DataFrame(
            {
                "eval_id": instructions["eval_id"],
                "answer": [a.text for a in answers],
                "tokens": [a.tokens for a in answers],
                "complete": [a.complete for a in answers],
            }
        )

    yield from run_side_by_side(one, list(folders), gpu)


def cached_answers(warehouse: Warehouse, key: str) -> pd.DataFrame | None:
    """The answers generated under this fingerprint before, or None."""
    if not warehouse.has_table("answer_cache"):
        return None
    answers = warehouse.query("judge_answers_of.sql", {"fingerprint": key})
    return answers if len(answers) else None
