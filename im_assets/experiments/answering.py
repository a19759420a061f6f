"""What models answer to evaluation instructions: greedily, in batches, each once, ever."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from im_assets.common.progress import Progress
from im_assets.experiments.evaluation import evaluation_rows
from im_assets.experiments.lineage import LineageError, same_base
from im_assets.experiments.measures import instructions_for, measures_of
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.language_model.template_registry import template_key
from im_resources.study import Study, fingerprint
from im_resources.turns import TURNS, texts_of, turns_in
from im_resources.usage import count
from im_resources.warehouse import Warehouse
from im_resources.workplace import OnStep, Workplace

# Changes when the same model would give another answer.
CODE_VERSION = 1
CACHE = "answer_cache"


def asked_of(study: Study, eval_set: pd.DataFrame) -> pd.DataFrame:
    """The instructions that have to be answered for the study's measures (instructions_for)."""
    rows = evaluation_rows(eval_set, study.evaluation)
    return instructions_for(measures_of(study), rows, study.judge)


def answers_fingerprint(
    model: str, instructions: pd.DataFrame, study: Study, new_tokens: int
) -> str:
    """Everything that changes the answers: the model (a trial's fingerprint covers its base), the
    instructions, prompt, lengths, and the batches, whose padding rounds otherwise."""
    models = study.models
    return fingerprint(
        CODE_VERSION,
        model,
        texts_of(instructions, ["eval_id", "instruction", "input"]),
        template_key(models.prompt),
        models.max_length,
        new_tokens,
        study.evaluation.tokens_per_batch,
    )


def instructions_fingerprint(instructions: pd.DataFrame, study: Study) -> str:
    """What all answers of a study depend on beside the model, and what is right: see lineage.

    Args:
        instructions: as ``asked_of`` gives them.
    """
    texts = texts_of(instructions, [c for c in instructions.columns if c != TURNS])
    models, tokens = study.models, study.evaluation.answer_tokens
    prompt = template_key(models.prompt)
    return fingerprint(CODE_VERSION, texts, prompt, models.max_length, tokens)


def require_base_answers(
    base_answers: pd.DataFrame, instructions: pd.DataFrame, study: Study, gpu: GpuResource
) -> None:
    """Refuse answers of another base model, or to other instructions, than the finetunes'.

    Raises LineageError.
    """
    base, tokens = gpu.base_fingerprint(study), study.evaluation.answer_tokens
    if set(base_answers["fingerprint"]) != {answers_fingerprint(base, instructions, study, tokens)}:
        raise LineageError(
            "base_answers are of another base model, or to other instructions, than the finetuned "
            "models' answers; materialize base_answers again"
        )


def answered(
    trials: Mapping[str, str],
    instructions: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    store: AdapterStore,
    warehouse: Warehouse,
    new_tokens: int,
    progress: Progress | None = None,
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """The answers of every trial; what was answered before is not answered again.

    Args:
        trials: the trial of each partition key.
        instructions: eval_id, instruction, input, and turns where some are conversations, one row
            each.
        new_tokens: longest answer.

    Returns:
        By partition key: eval_id, answer, tokens (generated), complete (ended by itself),
        fingerprint (what the answers depend on), in the order of ``instructions``; and the trials
        that answered just now.

    Raises AdapterError when a trial that has to answer is not in the store, LineageError when it
    was trained over another base.
    """
    models, here = dict.fromkeys(trials.values()), Workplace(study, gpu, store, warehouse)
    done, new = _answered(models, instructions, here, new_tokens, progress)
    return {partition: done[trial] for partition, trial in trials.items()}, new


def answered_by_base(
    instructions: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
    new_tokens: int,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The base model's own answers, without any adapter; columns as of ``answered``."""
    base, here = gpu.base_fingerprint(study), Workplace(study, gpu, None, warehouse)
    done, _ = _answered([base], instructions, here, new_tokens, progress)
    return done[base]


def _answered(
    models: Collection[str],
    instructions: pd.DataFrame,
    here: Workplace,
    new_tokens: int,
    progress: Progress | None,
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """``models``: the trials, or the base model's fingerprint alone where there is no store."""
    study, warehouse = here.study, here.tables
    keys = {m: answers_fingerprint(m, instructions, study, new_tokens) for m in models}
    cached = {m: cached_answers(warehouse, key) for m, key in keys.items()}
    done = {m: answers for m, answers in cached.items() if answers is not None}
    missing = [m for m in models if m not in done]
    count(found=len(done), computed=len(missing))
    if missing:  # else the base model is not loaded for nothing
        if progress is not None:
            progress.total = len(missing)
        here = replace(here, on_step=None if progress is None else progress.step)
        items = dict.fromkeys(missing, here.adapters is None)
        common: dict[str, Any] = {"instructions": instructions, "new_tokens": new_tokens}
        for model, new in here.gpu.run(answers_of_models, items, here, **common):
            done[model] = new.assign(fingerprint=keys[model])
            warehouse.append(CACHE, done[model], key=["fingerprint", "eval_id"])
    order = instructions[["eval_id"]]
    return {m: order.merge(done[m], on="eval_id", validate="1:1") for m in models}, set(missing)


def answers_of_models(
    items: Mapping[str, bool], here: Workplace, instructions: pd.DataFrame, new_tokens: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """A task: the answers of finetunes that are in the store, by their trial.

    Args:
        items: whether each is the base model itself, and no trial.

    Raises AdapterError when one is not there, LineageError when it was trained over another base.
    """
    study, folders = here.study, dict[str, Path | None]()
    for model, is_base in items.items():
        if not is_base:
            base = here.gpu.base_fingerprint(study)
            same_base(model, here.store.there(model), base)
        folders[model] = None if is_base else here.store.folder(model)
    yield from answer_all(folders, instructions, study, here.gpu, new_tokens, here.on_step)


def answer_all(
    folders: Mapping[str, Path | None],
    instructions: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    new_tokens: int,
    on_batch: OnStep | None = None,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (model, its answers) for every adapter folder, or None for the base model itself, as
    they finish: eval_id, answer, tokens, complete."""
    from im_resources.language_model.finetuned import load_finetuned
    from im_resources.language_model.generation import greedy_answers
    from im_resources.language_model.memory import enough_memory
    from im_resources.language_model.prompts import encode
    from im_resources.language_model.side_by_side import run_side_by_side

    base = gpu.base_model(study)
    prompts = [
        encode(
            base.tokenizer,
            study.models.prompt,
            str(row.instruction),
            str(row.input),
            [],
            study.models.max_length,
            turns=turns,
        ).prompt
        for row, turns in zip(instructions.itertuples(), turns_in(instructions), strict=True)
    ]

    def one(model_id: str) -> pd.DataFrame:
        folder = folders[model_id]
        report = None if on_batch is None else lambda *done: on_batch(model_id, *done)
        most = study.evaluation.tokens_per_batch
        with enough_memory(f"answers of {model_id}", {"evaluation.tokens_per_batch": most}):
            model = base.replica() if folder is None else load_finetuned(base, folder)
            answers = greedy_answers(model, base.tokenizer, prompts, new_tokens, most, report)
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
    if not warehouse.has_table(CACHE):
        return None
    answers = warehouse.query("answers_of.sql", {"fingerprint": key})
    return answers if len(answers) else None
