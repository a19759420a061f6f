"""What base and finetunes answer, and whose answers a judge prefers: what measures read."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.presentation import presentation, preview, table
from im_assets.common.progress import Progress
from im_assets.common.versions import content_version, merged_version
from im_assets.experiments.answering import (
    CODE_VERSION,
    answered,
    answered_by_base,
    asked_of,
    instructions_fingerprint,
    require_base_answers,
)
from im_assets.experiments.evaluation import evaluation_rows
from im_assets.experiments.experiment import Experiment
from im_assets.experiments.measures import Measure, Reads, measures_of
from im_assets.experiments.stopping import gate_of, nothing, require_rows, rows_of
from im_assets.judging.against_base import verdicts_against_base
from im_assets.judging.asking import JUDGE, judge_of
from im_assets.judging.comparing import PROMPT_VERSION, asked_instructions
from im_assets.judging.verdicts import tally
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.judge import JudgeError
from im_resources.study import Study
from im_resources.warehouse import Warehouse

ANSWER_COLUMNS = {
    "eval_id": ("text", "Instruction of the evaluation set"),
    "instruction": ("text", "The instruction"),
    "input": ("text", "Its input; may be empty"),
    "category": ("text", "Its category; may be empty"),
    "response": ("text", "The model's answer, the likeliest token at each step"),
    "tokens": ("bigint", "Tokens generated"),
    "complete": ("boolean", "Whether the model ended it, before evaluation.answer_tokens"),
    "answer": ("text", "What a right response comes to; '' where not known"),
    "pattern": ("text", "Regular expression that a right response matches; '' where not known"),
    "fingerprint": ("text", "What the answer depends on: model, instructions, prompt, lengths"),
}
TRIAL_COLUMNS = {
    "trial_id": ("text", "Fingerprint of the trial"),
    "set_id": ("text", "Fingerprint of the set that it was trained on"),
    "instructions_id": ("text", "Fingerprint of the instructions, the prompt and the lengths"),
    "version": ("text", "Data version of the partition"),
}
VERDICT_COLUMNS = {
    "eval_id": ("text", "Instruction of the evaluation set"),
    "order_1": ("text", "Who wins when the finetuned model's answer stands first, or tie"),
    "order_2": ("text", "Who wins when the base model's answer stands first, or tie"),
    "outcome": ("text", "win, tie or lose of the finetuned model; null: not judged"),
    "position_bias": ("boolean", "Whether the orders contradict each other; null: not judged"),
    "problem": ("text", "Why an order has no verdict; null: both have one"),
    "judge": ("text", "The judging model"),
    "judge_id": ("text", "Fingerprint of the judge"),
    "fingerprint": ("text", "What the verdict depends on: both answers, judge, prompt"),
}
PRESENTATION: dict[str, Any] = {
    "kinds": {"pytorch", "duckdb"},
    "code_version": str(CODE_VERSION),
    "reads": (
        "evaluation.measures",
        "evaluation.answer_tokens",
        "evaluation.max_instructions",
        "evaluation.take",
        "evaluation.sample_seed",
        "evaluation.tokens_per_batch",
        "rule.target",
        "judge.instructions",
        "judge.take",
        "judge.sample_seed",
        "models.base",
        "models.precision",
        "models.prompt",
        "models.max_length",
    ),
    "gpu": True,
}


@dg.asset(**presentation("experiments", columns=ANSWER_COLUMNS, **PRESENTATION))
def base_answers(
    context: dg.AssetExecutionContext,
    eval_set: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """What the base model itself answers: what the finetunes' answers are compared with."""
    instructions = asked_of(study, eval_set)
    progress = Progress(context, "answering", 1, "models")
    done = answered_by_base(
        instructions, study, gpu, warehouse, study.evaluation.answer_tokens, progress
    )
    answers = _with_instructions(instructions, done)[list(ANSWER_COLUMNS)]
    return table(answers, _summary(answers, measures_of(study), "answers"))


def answers_asset(experiment: Experiment) -> dg.AssetsDefinition:
    """The asset with the answers of each of the experiment's finetunes."""
    columns = {
        experiment.column: ("text", "Partition key"),
        **ANSWER_COLUMNS,
        **TRIAL_COLUMNS,
    }

    @dg.asset(
        name=experiment.asset("answers"),
        description=f"What the model finetuned on each of the {experiment.noun} answers to the "
        "evaluation instructions that the measures need, greedily.",
        partitions_def=experiment.partitions,
        ins={"trained": rows_of(experiment, experiment.adapters), **gate_of(experiment)},
        **presentation(
            experiment.group or "experiments",
            columns=columns,
            partition_column=experiment.column,
            **PRESENTATION,
        ),
    )
    def answers_of(
        context: dg.AssetExecutionContext,
        trained: pd.DataFrame,
        eval_set: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
        **gate: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        made = {**ANSWER_COLUMNS, **TRIAL_COLUMNS}
        if (stopped := nothing(context, experiment, gate, made)) is not None:
            return stopped
        require_rows(trained, experiment, experiment.adapters, context.partition_keys)
        instructions, measures = asked_of(study, eval_set), measures_of(study)
        trials = trained.set_index(experiment.column)
        progress = Progress(context, "answering", len(trials), experiment.noun)
        done, new = answered(
            {str(key): str(t) for key, t in trials["trial_id"].items()},
            instructions,
            study,
            gpu,
            adapters,
            warehouse,
            study.evaluation.answer_tokens,
            progress,
        )
        instructions_id = instructions_fingerprint(instructions, study)
        version = merged_version([instructions_id, *trained["version"]])
        tables = []
        for key, answers in done.items():
            parts = {name: str(trials[name][key]) for name in ("trial_id", "set_id")}
            frame = _with_instructions(instructions, answers).assign(
                **parts,
                **{experiment.column: key},
                instructions_id=instructions_id,
                version=version,
            )
            metadata = _summary(frame, measures, "answers")
            metadata |= {"answered in this run": parts["trial_id"] in new, **parts}
            context.add_asset_metadata(metadata, partition_key=key)
            tables.append(frame[list(columns)])
        return table(pd.concat(tables, ignore_index=True), version=version)

    return answers_of


def verdicts_asset(experiment: Experiment, study: Study) -> dg.AssetsDefinition:
    """The asset with a judge's verdicts on each finetune's answers, against the base model's."""
    assert study.judge is not None
    columns = {
        experiment.column: ("text", "Partition key"),
        **VERDICT_COLUMNS,
        **TRIAL_COLUMNS,
    }
    local = study.judge.backend == "local"

    @dg.asset(
        name=experiment.asset("verdicts"),
        description=f"Whether the model finetuned on each of the {experiment.noun} answers better "
        "than the base model, judged in both orders: win, tie or lose.",
        partitions_def=experiment.partitions,
        ins={"answers": rows_of(experiment, experiment.asset("answers")), **gate_of(experiment)},
        **presentation(
            experiment.group or "experiments",
            {"pytorch" if local else "openai", "duckdb"},
            columns,
            code_version=str(PROMPT_VERSION),
            reads=(
                *JUDGE,
                "judge.instructions",
                "judge.take",
                "judge.sample_seed",
                "evaluation.max_instructions",
                "evaluation.take",
                "evaluation.sample_seed",
            ),
            partition_column=experiment.column,
            gpu=local,
        ),
    )
    def verdicts_of(
        context: dg.AssetExecutionContext,
        answers: pd.DataFrame,
        base_answers: pd.DataFrame,
        eval_set: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **gate: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        assert study.judge is not None
        made = {**VERDICT_COLUMNS, **TRIAL_COLUMNS}
        if (stopped := nothing(context, experiment, gate, made)) is not None:
            return stopped
        require_rows(answers, experiment, experiment.asset("answers"), context.partition_keys)
        require_base_answers(base_answers, asked_of(study, eval_set), study, gpu)
        rows = asked_instructions(evaluation_rows(eval_set, study.evaluation), study.judge)
        kept = [experiment.column, "eval_id", "response", "fingerprint", *TRIAL_COLUMNS]
        mine = answers.loc[answers["eval_id"].isin(rows["eval_id"]), kept]
        mine = mine.merge(rows, on="eval_id", validate="many_to_one")
        progress = Progress(context, "judging", 2 * len(mine), "verdicts")
        with judge_of(study, gpu) as judge:
            verdicts, _ = verdicts_against_base(
                mine, base_answers, judge, warehouse, progress.advance
            )
            version = merged_version(
                [content_version(base_answers), judge.fingerprint, *mine["version"]]
            )
        measures = measures_of(study)
        for key, part in verdicts.groupby(experiment.column):
            if part["outcome"].isna().all():
                raise JudgeError(
                    f"{key}: none of the {len(part)} pairs could be judged; the first problem: "
                    f"{part['problem'].iloc[0]}"
                )
            context.add_asset_metadata(_summary(part, measures, "verdicts"), partition_key=str(key))
        verdicts = verdicts.assign(version=version)[list(columns)]
        return table(
            verdicts.sort_values([experiment.column], kind="stable", ignore_index=True),
            version=version,
        )

    return verdicts_of


def _with_instructions(instructions: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """The instructions with what a model answered, which the cache calls ``answer``."""
    responses = answers.rename(columns={"answer": "response"})
    return instructions.merge(responses, on="eval_id", validate="1:1")


def _summary(rows: pd.DataFrame, measures: Sequence[Measure], reads: Reads) -> dict[str, Any]:
    """The measures that read the rows, and what they look like."""
    numbers: dict[str, Any] = {m.label: m.of(rows) for m in measures if m.reads == reads}
    numbers["instructions"] = len(rows)
    if reads == "answers":
        numbers["mean tokens"] = float(rows["tokens"].mean())
        numbers["ended by the model"] = float(rows["complete"].mean())
        numbers["examples"] = preview(rows[["instruction", "response", "answer"]])
        return numbers
    counts = tally(rows["outcome"].tolist(), rows["position_bias"].tolist())
    numbers["position bias rate"] = counts.position_bias.share
    numbers["pairs not judged"] = counts.not_judged
    numbers["judge"] = str(rows["judge"].iloc[0])
    return numbers
