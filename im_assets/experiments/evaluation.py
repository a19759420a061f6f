"""The evaluation loss: mean cross-entropy over reference outputs (paper: L(M_ft, D_eval))."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from im_assets.common.digests import sample_rank, taken
from im_assets.common.progress import Progress
from im_assets.experiments.lineage import same_base
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.language_model.template_registry import template_key
from im_resources.study import EvaluationSettings, Study, fingerprint
from im_resources.turns import texts_of, turns_in
from im_resources.usage import count
from im_resources.warehouse import Warehouse
from im_resources.workplace import OnStep, Workplace

# Changes when the same adapter and evaluation set would get another loss.
CODE_VERSION = 1

CACHE, CACHE_KEY = "eval_loss_cache", ["fingerprint", "eval_id", "output_index"]


def evaluation_rows(eval_set: pd.DataFrame, settings: EvaluationSettings) -> pd.DataFrame:
    """The reference outputs that the profile evaluates: one row each, in the set's order."""
    take, seed = settings.take, settings.sample_seed
    ids = taken(eval_set["eval_id"], settings.max_instructions, take, seed)
    rows = eval_set[eval_set["eval_id"].isin(ids)]
    if settings.max_outputs is not None:
        ranked = rows
        if take == "sample":
            contents = rows["eval_id"] + ":" + rows["output"]
            ranks = pd.Series([sample_rank(seed, c) for c in contents], rows.index, dtype=object)
            ranked = rows.loc[ranks.sort_values(kind="stable").index]
        places = ranked.groupby("eval_id").cumcount()
        rows = rows[places.reindex(rows.index) < settings.max_outputs]
    return rows.reset_index(drop=True)


def told_rows(eval_set: pd.DataFrame, rows: pd.DataFrame, settings: EvaluationSettings) -> str:
    """How much of the evaluation set is evaluated on, and how it was taken."""
    if len(rows) == len(eval_set):
        return f"all {rows['eval_id'].nunique()} instructions, {len(rows)} outputs"
    how = f"a sample (seed {settings.sample_seed})" if settings.take == "sample" else "the first"
    return (
        f"{rows['eval_id'].nunique()} of {eval_set['eval_id'].nunique()} instructions, "
        f"{len(rows)} of {len(eval_set)} outputs: {how}"
    )


def evaluation_fingerprint(rows: pd.DataFrame, study: Study) -> str:
    """Everything on the evaluation's side that changes a loss: texts, prompt, cuts, code."""
    texts = texts_of(rows, ["eval_id", "output_index", "instruction", "input", "output"])
    models, settings = study.models, study.evaluation
    return fingerprint(
        CODE_VERSION,
        texts,
        template_key(models.prompt),
        models.max_length,
        settings.max_output_tokens,
    )


def encode_evaluation(rows: pd.DataFrame, tokenizer: Any, study: Study) -> list[Any]:
    """One Encoded an instruction, with all its reference outputs."""
    from im_resources.language_model.prompts import encode

    return [
        encode(
            tokenizer,
            study.models.prompt,
            group["instruction"].iloc[0],
            group["input"].iloc[0],
            group["output"].tolist(),
            study.models.max_length,
            study.evaluation.max_output_tokens,
            turns_in(group)[0],
        )
        for _, group in rows.groupby("eval_id", sort=False)
    ]


def losses_frame(rows: pd.DataFrame, losses: Any) -> pd.DataFrame:
    """``OutputLosses`` as rows: eval_id, output_index, nll (nats, summed), tokens, loss (nats)."""
    groups = [group for _, group in rows.groupby("eval_id", sort=False)]
    ordered = pd.concat(groups)[["eval_id", "output_index"]].reset_index(drop=True)
    table = ordered.assign(nll=losses.nll, tokens=losses.tokens, loss=losses.nll / losses.tokens)
    # As the cache gives them, so that a table measured and one found there are the same.
    return table.sort_values(["eval_id", "output_index"], ignore_index=True)


def evaluate_base(
    rows: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    on_batch: Callable[[int, int, int], None] | None = None,
) -> pd.DataFrame:
    """Losses of the base model itself, without any adapter."""
    step = None if on_batch is None else lambda _, *done: on_batch(*done)
    here = Workplace(study, gpu, on_step=step)
    [(_, losses)] = gpu.run(base_losses_on, {"the base model": None}, here, rows=rows)
    return losses


def base_losses_on(
    items: Mapping[str, None], here: Workplace, rows: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame]]:
    """A task: the losses of the base model itself, for the one item that there is."""
    from im_resources.language_model.losses import output_losses
    from im_resources.language_model.memory import enough_memory

    [name], study, on_step = items, here.study, here.on_step
    base = here.gpu.base_model(study)
    on_batch = None if on_step is None else partial(on_step, name)
    encoded, most = (
        encode_evaluation(rows, base.tokenizer, study),
        study.evaluation.tokens_per_batch,
    )
    with enough_memory("evaluating the base", {"evaluation.tokens_per_batch": most}):
        losses = output_losses(base.replica(), encoded, most, on_batch=on_batch)
    yield name, losses_frame(rows, losses)


def evaluate_adapters(
    folders: Mapping[str, Path],
    rows: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    on_batch: OnStep | None = None,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (partition, its losses) for every adapter folder, as they finish.

    Where the evaluation set is small, several adapters share their passes (``evaluating.py``).
    """
    from im_resources.language_model.evaluating import at_once, losses_under
    from im_resources.language_model.memory import enough_memory
    from im_resources.language_model.side_by_side import run_side_by_side

    base, most = gpu.base_model(study), study.evaluation.tokens_per_batch
    encoded = encode_evaluation(rows, base.tokenizer, study)

    def several(partitions: tuple[str, ...]) -> list[pd.DataFrame]:
        def report(batch: int, batches: int, tokens: int) -> None:
            if on_batch is not None:
                for partition in partitions:
                    on_batch(partition, batch, batches, tokens // len(partitions))

        doing = f"evaluating {', '.join(partitions)}"
        with enough_memory(doing, {"evaluation.tokens_per_batch": most}):
            found = losses_under(base, [folders[p] for p in partitions], encoded, most, report)
        return [losses_frame(rows, losses) for losses in found]

    names, number = list(folders), at_once(base, encoded, most)
    groups = [tuple(names[k : k + number]) for k in range(0, len(names), number)]
    for partitions, tables in run_side_by_side(several, groups, gpu):
        yield from zip(partitions, tables, strict=True)


def losses_of_trials(
    items: Mapping[str, None], here: Workplace, rows: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame]]:
    """A task: the losses of finetunes that are in the store, by their trial.

    Raises AdapterError when one is not there, LineageError when it was trained over another base.
    """
    base = here.gpu.base_fingerprint(here.study)
    for trial in items:
        same_base(trial, here.store.there(trial), base)
    folders = {trial: here.store.folder(trial) for trial in items}
    yield from evaluate_adapters(folders, rows, here.study, here.gpu, here.on_step)


def evaluated(
    trials: Mapping[str, str],
    rows: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    store: AdapterStore,
    warehouse: Warehouse,
    progress: Progress | None = None,
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Losses of every trial on ``rows``; what was measured before is not measured again.

    Args:
        trials: the trial of each partition key.

    Returns:
        The losses by partition key, with their fingerprint, and the trials evaluated just now.

    Raises AdapterError when a trial that has to be evaluated is not in the store, LineageError when
    it was trained over another base.
    """
    shared = evaluation_fingerprint(rows, study)
    keys = {trial: fingerprint(trial, shared) for trial in trials.values()}
    found = cached_losses(warehouse, keys.values())
    done = {trial: found[key] for trial, key in keys.items() if key in found}
    missing = {trial: None for trial in keys if trial not in done}
    count(found=len(done), computed=len(missing))
    if missing:  # else the base model is not loaded for nothing
        if progress is not None:
            progress.total = len(missing)
        names = {trial: partition for partition, trial in trials.items()}
        step = None if progress is None else _by_name(progress, names)
        here = Workplace(study, gpu, store, warehouse, step)
        for trial, losses in gpu.run(losses_of_trials, missing, here, rows=rows):
            done[trial] = losses.assign(fingerprint=keys[trial])
            warehouse.append(CACHE, done[trial], key=CACHE_KEY)
    return {partition: done[trial] for partition, trial in trials.items()}, set(missing)


def _by_name(progress: Progress, names: Mapping[str, str]) -> OnStep:
    """Reports a trial's steps under its partition, which is what a reader knows it by."""
    return lambda trial, *step: progress.step(names[trial], *step)


def cached_losses(warehouse: Warehouse, keys: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The losses measured before under these fingerprints, by fingerprint."""
    if not warehouse.has_table(CACHE):
        return {}
    losses = warehouse.query("eval_losses_of.sql", {"fingerprints": list(keys)})
    return {
        str(key): rows.reset_index(drop=True)
        for key, rows in losses.groupby("fingerprint", sort=False)
    }


def overall(losses: pd.DataFrame, weighting: str) -> float:
    """The one number of a finetune: over all response tokens, or over instructions.

    instruction: the mean over instructions of the mean over an instruction's outputs of the mean
    cross-entropy of an output.
    """
    if weighting == "token":
        return float(losses["nll"].sum() / losses["tokens"].sum())
    return float(np.mean(losses.groupby("eval_id")["loss"].mean()))


def overall_by(losses: pd.DataFrame, column: str, weighting: str) -> dict[str, float]:
    """The one number of each finetune, by its partition key in ``column``."""
    return {str(key): overall(rows, weighting) for key, rows in losses.groupby(column)}
