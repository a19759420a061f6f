"""The samples of an experiment, what is finetuned on them, and their losses; the base's own."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.candidates.content import TEXTS
from im_assets.candidates.versions import KEY
from im_assets.common.charts.drawing import png_markdown
from im_assets.common.cuts import forget, recorded, whole_sets
from im_assets.common.partitions import record_partitions
from im_assets.common.presentation import presentation, table
from im_assets.common.progress import Progress
from im_assets.common.tracking import tracked
from im_assets.common.versions import content_version, merged_version, stored_version
from im_assets.experiments.checks import completeness, completeness_spec
from im_assets.experiments.evaluation import (
    CACHE,
    CACHE_KEY,
    CODE_VERSION,
    cached_losses,
    encode_evaluation,
    evaluate_base,
    evaluated,
    evaluation_fingerprint,
    evaluation_rows,
    overall,
    told_rows,
)
from im_assets.experiments.experiment import Drawing, Experiment
from im_assets.experiments.figures import training_figure
from im_assets.experiments.finetuning import CODE_VERSION as TRAINING_VERSION
from im_assets.experiments.finetuning import (
    FinetuneError,
    Trained,
    finetune_all,
    finetunes,
    training_settings_id,
)
from im_assets.experiments.lineage import set_id_of
from im_assets.experiments.stopping import gate_of, nothing, require_rows, rows_of
from im_assets.scoring.batch import Models
from im_assets.scoring.cached import rows_among
from im_assets.scoring.cuts import counted_once, cuts_fingerprint, cuts_of
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study, fingerprint
from im_resources.turns import TURNS
from im_resources.usage import count
from im_resources.warehouse import Warehouse

VERSION = ("text", "Data version of the partition")
SAMPLES = {
    "position": ("bigint", "Place in the set, from 0"),
    "example_id": ("text", "Content hash of the example"),
    "set_id": ("text", "Fingerprint of the set: its examples in order"),
    "drawing_id": ("text", "Fingerprint of the settings that it was drawn with"),
    "version": VERSION,
}
ADAPTERS = {
    "trial_id": ("text", "Fingerprint of the trial: set, settings, base and seed"),
    "set_id": ("text", "Fingerprint of the set that it was trained on"),
    "settings_id": ("text", "Fingerprint of the trainer's settings and the prompt"),
    "base_id": ("text", "Fingerprint of the base model in its precision"),
    "precision": ("text", "Precision of the base model"),
    "finetune_seed": ("bigint", "Seed of the finetune"),
    "examples": ("bigint", "Examples trained on"),
    "steps": ("bigint", "Optimizer steps"),
    "first_loss": ("double", "Training loss of the first step, nats per response token"),
    "last_loss": ("double", "Training loss of the last step"),
    "tokens": ("bigint", "Tokens computed, padding included"),
    "seconds": ("double", "Wall seconds of the training"),
    "folder": ("text", "Where the adapter lies"),
    "version": VERSION,
}
OUTPUTS = {
    "eval_id": ("text", "Instruction of the evaluation set"),
    "output_index": ("bigint", "Reference output of the instruction, from 0"),
    "nll": ("double", "Negative log-likelihood summed over the output's tokens, nats"),
    "tokens": ("bigint", "Tokens of the output"),
    "loss": ("double", "nll / tokens: mean cross-entropy, nats"),
    "fingerprint": ("text", "What the loss depends on: trial or base, evaluation set, settings"),
}
LOSSES = OUTPUTS | {
    "trial_id": ("text", "Fingerprint of the trial"),
    "set_id": ("text", "Fingerprint of the set that it was trained on"),
    "evaluation_id": ("text", "Fingerprint of the evaluation set, its cuts and prompt"),
    "version": VERSION,
}
BASE = ("models.base", "models.precision", "models.prompt", "models.max_length")
CUTS = (
    "evaluation.max_instructions",
    "evaluation.max_outputs",
    "evaluation.max_output_tokens",
    "evaluation.take",
    "evaluation.sample_seed",
)
FORWARD: dict[str, Any] = {"kinds": {"pytorch", "duckdb"}, "gpu": True}


def samples_asset(experiment: Experiment) -> dg.AssetsDefinition:
    """The asset with the members of each of the experiment's sets."""
    key_column = {experiment.column: ("text", "Partition key")}

    @dg.asset(
        name=experiment.samples,
        description=experiment.description,
        partitions_def=experiment.partitions,
        ins={
            name: dg.AssetIn(name, metadata=_read(name, experiment))
            for name in experiment.made_from
        },
        check_specs=[completeness_spec(experiment)],
        **presentation(
            experiment.group or experiment.name,
            {"python", "duckdb"},
            {**key_column, **SAMPLES, **experiment.columns},
            code_version=experiment.version,
            reads=experiment.reads,
            partition_column=experiment.column,
        ),
    )
    def samples_of(
        context: dg.AssetExecutionContext,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]:
        yield completeness(context, experiment.now(tables), study, gpu, warehouse)
        more = {**SAMPLES, **experiment.columns}
        if (stopped := nothing(context, experiment, tables, more)) is not None:
            yield stopped
            return
        drawing_id = experiment.drawing_id(study)
        drawing = Drawing(tables, study, Models.of(study, gpu), warehouse)
        if experiment.origin is not None:
            made_from = [experiment.origin(drawing)]
        else:
            made_from = [
                stored_version(name, warehouse)  # all columns of it count
                if name == experiment.pool
                else content_version(tables[name])
                for name in experiment.made_from
            ]
        version = fingerprint(drawing_id, made_from)
        drawn = []
        keys = context.partition_keys
        sets = experiment.draw(keys, drawing)
        for key, members in tracked(sets, "drawing", experiment.noun, len(keys)):
            set_id = set_id_of(members["example_id"])
            rows = members.reset_index(drop=True).assign(
                set_id=set_id, drawing_id=drawing_id, version=version
            )
            rows.insert(0, experiment.column, key)
            rows.insert(1, "position", range(len(rows)))
            drawn.append(rows)
            context.add_asset_metadata(
                {"examples": len(rows), "set": set_id, **_by_source(rows)}, partition_key=key
            )
        yield table(pd.concat(drawn, ignore_index=True), version=version)

    return samples_of


def _read(name: str, experiment: Experiment) -> dict[str, Any]:
    """How a table that sets are drawn from is read: scores are long, and of few texts; of the pool
    of a series, which is drawn from the pool's history, nothing but the key; of another pool, no
    texts, unless sets are drawn by them."""
    if experiment.origin is not None and name == experiment.pool:
        return {"columns": KEY}
    if name == experiment.pool and not experiment.texts:
        return {"without": [*TEXTS, TURNS]}
    return {"categories": name == experiment.scores}


def adapters_asset(experiment: Experiment) -> dg.AssetsDefinition:
    """The asset with what was finetuned on each of the experiment's sets."""

    @dg.asset(
        name=experiment.adapters,
        description=f"Finetunes on the {experiment.noun}, on the frozen, shared base model; loss "
        "on response tokens only. Each is kept in the folder that its trainer wrote; a trial that "
        "is there is not trained again.",
        partitions_def=experiment.partitions,
        ins={
            "samples": rows_of(experiment, experiment.samples),
            **gate_of(experiment),
        },
        deps=[experiment.pool],  # of which only the members are read
        **presentation(
            experiment.group or "experiments",
            {"pytorch", "huggingface"},
            {experiment.column: ("text", "Partition key"), **ADAPTERS},
            code_version=str(TRAINING_VERSION),
            reads=("finetuning", "models.loss_turns", *BASE),
            partition_column=experiment.column,
            gpu=True,
        ),
    )
    def adapters_of(
        context: dg.AssetExecutionContext,
        samples: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
        **gate: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        if (stopped := nothing(context, experiment, gate, ADAPTERS)) is not None:
            forget(context, warehouse, context.partition_keys)
            return stopped
        require_rows(samples, experiment, experiment.samples, context.partition_keys)
        members = rows_among(experiment.pool, samples["example_id"].unique(), warehouse)
        work = finetunes(samples, members, experiment)
        # Before anything is trained, so that the warning comes in time.
        sets = {key: finetune.examples for key, finetune in work.items()}
        cuts = cuts_of(members, Models.of(study, gpu), warehouse)
        cuts = cuts.assign(source=members["source"].to_numpy())
        cut = recorded(context, whole_sets(cuts, sets), study, warehouse)
        progress = Progress(context, "finetuning", len(work), experiment.noun)
        version = merged_version(
            [training_settings_id(study), gpu.base_fingerprint(study), *samples["version"]]
        )
        rows, now, told, left = [], 0, {}, len(work)
        try:
            for key, trained in finetune_all(work, study, gpu, adapters, progress.step):
                now += trained.now
                left -= not trained.now  # nothing is left to do for it
                progress.total = left
                folder = str(adapters.folder(trained.trial_id))
                rows.append({experiment.column: key, **_adapter_row(trained), "folder": folder})
                told[key] = _adapter_metadata(trained, key, study) | cut[key]
        except FinetuneError:
            made = pd.DataFrame(rows).assign(version=version)
            record_partitions(context, warehouse, made, experiment.column, version, told)
            raise
        for key, metadata in told.items():
            context.add_asset_metadata(metadata, partition_key=key)
        context.add_asset_metadata({"trained in this run": now})
        frame = pd.DataFrame(rows).sort_values(experiment.column, ignore_index=True)
        return table(frame.assign(version=version), version=version)

    return adapters_of


def losses_asset(experiment: Experiment) -> dg.AssetsDefinition:
    """The asset with the evaluation losses of each of the experiment's finetunes."""

    @dg.asset(
        name=experiment.losses,
        description="The loss of the model finetuned on each of the "
        f"{experiment.noun}, on every reference output of the evaluation set.",
        partitions_def=experiment.partitions,
        ins={"trained": rows_of(experiment, experiment.adapters), **gate_of(experiment)},
        deps=list(experiment.before),
        **presentation(
            experiment.group or "experiments",
            columns={experiment.column: ("text", "Partition key"), **LOSSES},
            code_version=str(CODE_VERSION),
            reads=(*CUTS, *BASE),
            partition_column=experiment.column,
            **FORWARD,
        ),
    )
    def losses_of(
        context: dg.AssetExecutionContext,
        trained: pd.DataFrame,
        eval_set: pd.DataFrame,
        base_losses: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
        **gate: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        if (stopped := nothing(context, experiment, gate, LOSSES)) is not None:
            return stopped
        require_rows(trained, experiment, experiment.adapters, context.partition_keys)
        rows = evaluation_rows(eval_set, study.evaluation)
        progress = Progress(context, "evaluating", len(trained), experiment.noun)
        made, new = measured_losses(
            trained, rows, experiment.column, study, gpu, adapters, warehouse, progress
        )
        base = None  # not known where base_losses are of another base or evaluation set
        evaluation_id = evaluation_fingerprint(rows, study)
        if set(base_losses["fingerprint"]) == {base_key(study, gpu, evaluation_id)}:
            base = overall(base_losses, study.evaluation.weighting)
        for losses in made:
            parts = {name: str(losses[name].iloc[0]) for name in ("trial_id", "set_id")}
            metadata = _loss_metadata(losses, base, study)
            metadata |= {"evaluated in this run": parts["trial_id"] in new, **parts}
            key = str(losses[experiment.column].iloc[0])
            context.add_asset_metadata(metadata, partition_key=key)
        version = str(made[0]["version"].iloc[0])
        return table(pd.concat(made, ignore_index=True), progress.rates, version)

    return losses_of


def measured_losses(
    trained: pd.DataFrame,
    rows: pd.DataFrame,
    column: str,
    study: Study,
    gpu: GpuResource,
    adapters: AdapterStore,
    warehouse: Warehouse,
    progress: Progress,
) -> tuple[list[pd.DataFrame], set[str]]:
    """The losses of each finetune on ``rows`` as the experiments' tables hold them, and the trials
    that were evaluated just now.

    Args:
        trained: the finetunes, as an adapters asset holds them.
        column: of the partition keys.
    """
    trials = trained.set_index(column)
    keys = {str(key): str(trial) for key, trial in trials["trial_id"].items()}
    done, new = evaluated(keys, rows, study, gpu, adapters, warehouse, progress)
    evaluation_id = evaluation_fingerprint(rows, study)
    version = merged_version([evaluation_id, *trained["version"]])
    made = []
    for key, losses in done.items():
        parts = {name: str(trials[name][key]) for name in ("trial_id", "set_id")}
        frame = losses.assign(**parts, evaluation_id=evaluation_id, version=version)
        frame.insert(0, column, key)
        made.append(frame)
    return made, new


@dg.asset(
    **presentation(
        "experiments",
        columns=OUTPUTS,
        code_version=str(CODE_VERSION),
        reads=(*CUTS, *BASE),
        **FORWARD,
    )
)
def base_losses(
    context: dg.AssetExecutionContext,
    eval_set: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """The base model's own loss on every reference output: what a finetune has to beat."""
    rows = evaluation_rows(eval_set, study.evaluation)
    evaluation_id = evaluation_fingerprint(rows, study)
    key = base_key(study, gpu, evaluation_id)
    cuts = evaluation_cuts(rows, study, gpu, warehouse)
    sources = rows.drop_duplicates("eval_id")["source"].to_numpy()
    most = study.evaluation.max_output_tokens
    remedy = "raise models.max_length" + (
        f" or evaluation.max_output_tokens ({most})" if most else ""
    )
    cut = recorded(context, cuts.assign(partition="", source=sources), study, warehouse, remedy)
    losses = cached_losses(warehouse, [key]).get(key)
    count(found=int(losses is not None), computed=int(losses is None))
    if losses is None:
        progress = Progress(context, "evaluating", 1, "models")
        step = partial(progress.step, "the base model")
        losses = evaluate_base(rows, study, gpu, step).assign(fingerprint=key)
        warehouse.append(CACHE, losses, key=CACHE_KEY)
    loss = overall(losses, study.evaluation.weighting)
    metadata = {
        "loss": loss,
        "instructions": losses["eval_id"].nunique(),
        "outputs": len(losses),
        "taken": told_rows(eval_set, rows, study.evaluation),
        **cut.get("", {}),
    }
    return table(losses, metadata)


def evaluation_cuts(
    rows: pd.DataFrame, study: Study, gpu: GpuResource, warehouse: Warehouse
) -> pd.DataFrame:
    """What is cut of each instruction of the evaluation (see ``counted_once``), by its eval_id.

    Args:
        rows: those that are evaluated on (``evaluation_rows``).
    """

    def encode(missing: pd.Series) -> list[Any]:
        some = rows[rows["eval_id"].isin(missing)]
        return encode_evaluation(some, gpu.tokenizer(study), study)

    key = cuts_fingerprint(Models.of(study, gpu), evaluation_fingerprint(rows, study))
    return counted_once(rows["eval_id"].drop_duplicates(), key, encode, warehouse)


def base_key(study: Study, gpu: GpuResource, evaluation_id: str) -> str:
    """What the base model's own losses depend on."""
    return fingerprint(gpu.base_fingerprint(study), evaluation_id)


def _by_source(rows: pd.DataFrame) -> dict[str, Any]:
    if "source" not in rows:
        return {}
    counts = rows["source"].value_counts().sort_index()
    sizes = {str(source): int(count) for source, count in counts.items()}
    return {"by source": dg.MetadataValue.json(sizes)}


def _adapter_row(trained: Trained) -> dict[str, Any]:
    manifest, losses = trained.manifest, trained.manifest["losses"]
    return {
        "trial_id": trained.trial_id,
        "set_id": trained.set_id,
        "settings_id": trained.settings_id,
        "base_id": manifest["base"],
        "precision": manifest["precision"],
        "finetune_seed": manifest["seed"],
        "examples": manifest["examples"],
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "tokens": manifest["tokens"],
        "seconds": manifest["seconds"],
    }


def _adapter_metadata(trained: Trained, key: str, study: Study) -> dict[str, Any]:
    row, curve = _adapter_row(trained), {}
    if trained.now:  # drawing it anew for each of hundreds would be most of what a refit adds
        figure = training_figure(trained.manifest["losses"], f"Training loss, {key}")
        curve = {"loss curve": png_markdown(figure, "training loss")}
    return {
        **curve,
        "first loss": row["first_loss"],
        "last loss": row["last_loss"],
        "steps": row["steps"],
        "tokens/s": round(row["tokens"] / row["seconds"], 1),
        "wall seconds": row["seconds"],
        "precision": row["precision"],
        "settings": dg.MetadataValue.json(
            {
                "finetuning": study.finetuning.model_dump(mode="json"),
                "prompt": study.models.prompt,
                "max_length": study.models.max_length,
            }
        ),
        "set": row["set_id"],
        "trial": row["trial_id"],
        "trained in this run": trained.now,
    }


def _loss_metadata(losses: pd.DataFrame, base: float | None, study: Study) -> dict[str, Any]:
    loss = overall(losses, study.evaluation.weighting)
    return {
        "loss": loss,
        "log loss": math.log(loss),
        "base model's loss": base,
        "change against the base": None if base is None else loss - base,
        "token-weighted loss": overall(losses, "token"),
        "instruction-weighted loss": overall(losses, "instruction"),
        "settings": dg.MetadataValue.json(study.evaluation.model_dump(mode="json")),
    }
