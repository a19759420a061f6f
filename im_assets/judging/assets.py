"""judged_answers and pairwise_judge: do people's questions get better answers from the selection?

The paper has gpt-3.5-turbo and gpt-4 compare a model finetuned on rule-selected data with one
finetuned on a random selection. ``docs/judge.md`` tells how to read the result.
"""

from collections.abc import Iterable
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import presentation, preview, table
from im_assets.common.progress import Progress
from im_assets.experiments.answering import CODE_VERSION, answered
from im_assets.experiments.experiment import arm_key
from im_assets.experiments.finetuning import training_settings_id
from im_assets.experiments.holdout import reported_name, reported_rows
from im_assets.experiments.lineage import LineageError
from im_assets.judging.asking import JUDGE, Asked, ask_all, judge_of
from im_assets.judging.comparing import PROMPT_VERSION, asked_instructions
from im_assets.judging.figures import outcome_figure
from im_assets.judging.net_score import NetScore, net_score
from im_assets.judging.verdicts import Tally, judged_pairs, orders, tally
from im_assets.rule.checks import drawn_by_this_rule_check
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.judge import Endpoint, JudgeError, LocalJudge
from im_resources.study import Study
from im_resources.turns import turns_columns
from im_resources.warehouse import Warehouse

ANSWERS = {
    "eval_id": ("text", "Instruction of the evaluation set"),
    "instruction": ("text", "The instruction"),
    "input": ("text", "Its input; may be empty"),
    "arm": ("text", "Arm of the validation whose model answers"),
    "seed": ("bigint", "Seed of the finetune that answers"),
    "answer": ("text", "Its answer, the likeliest token at each step"),
    "tokens": ("bigint", "Tokens generated"),
    "complete": ("boolean", "Whether the model ended it, before judge.answer_tokens"),
    "fingerprint": ("text", "What the answers depend on: trial, instructions, prompt, lengths"),
    "trial_id": ("text", "Fingerprint of the trial that answers"),
    "rule_id": ("text", "Fingerprint of the rule that the arms were drawn by"),
    "part": ("text", "Instructions that were asked about: all, or held_out"),
}
PAIRS = {
    "eval_id": ("text", "Instruction of the evaluation set"),
    "instruction": ("text", "The instruction"),
    "input": ("text", "Its input; may be empty"),
    "seed": ("bigint", "Seed of the two finetunes that are compared"),
    "first_answer": ("text", "Answer of the arm judge.first"),
    "second_answer": ("text", "Answer of the arm judge.second"),
    "order_1": ("text", "Arm that wins when the first arm's answer stands first, or tie"),
    "order_2": ("text", "Arm that wins when the second arm's answer stands first, or tie"),
    "outcome": ("text", "win, tie or lose of the first arm; null: not judged"),
    "position_bias": ("boolean", "Whether the orders contradict each other; null: not judged"),
    "problem": ("text", "Why an order has no verdict; null: both have one"),
    "judge": ("text", "The judging model"),
    "rule_id": ("text", "Fingerprint of the rule that the arms were drawn by"),
    "part": ("text", "Instructions that were asked about: all, or held_out"),
}
LOCAL_WARNING = (
    "The judge is the study's own base model. This shows the mechanism and is **no evidence**: a "
    "small model mostly prefers a position. Set judge.backend to openai for a judge that can tell."
)


def definitions(study: Study) -> dg.Definitions:
    """The assets of this room; none when the profile has no judge."""
    settings = study.judge
    if settings is None or study.validation is None:
        return dg.Definitions()
    arms = judged_arms(study)

    @dg.asset(
        **presentation(
            "judging",
            {"pytorch", "duckdb"},
            ANSWERS,
            code_version=f"{CODE_VERSION}.3",
            reads=(
                "judge.first",
                "judge.second",
                "judge.seeds",
                "judge.instructions",
                "judge.take",
                "judge.sample_seed",
                "judge.answer_tokens",
                "evaluation.holdout",
                "evaluation.tokens_per_batch",
            ),
            gpu=True,
        ),
    )
    def judged_answers(
        context: dg.AssetExecutionContext,
        eval_set: pd.DataFrame,
        selection_adapters: pd.DataFrame,
        selection_samples: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """Answers to evaluation instructions (with a holdout, those held out) by the finetunes of
        the two arms that are compared."""
        instructions = asked_instructions(reported_rows(eval_set, study.evaluation), settings)
        settings_id = training_settings_id(study)
        trials = trials_of(arms, selection_adapters, selection_samples, settings_id)
        progress = Progress(context, "answering", len(trials), "models")
        done, new = answered(
            trials, instructions, study, gpu, adapters, warehouse, settings.answer_tokens, progress
        )
        answers = pd.concat(
            [
                instructions.merge(done[key], on="eval_id").assign(
                    arm=arm, seed=seed, trial_id=trials[key]
                )
                for key, (arm, seed) in arms.items()
            ],
            ignore_index=True,
        )
        rule_id = rule_of(arms, selection_samples)
        answers = answers.assign(rule_id=rule_id, part=reported_name(study.evaluation))
        answers = answers[[*ANSWERS, *turns_columns(answers)]]
        return table(answers, {"rule": rule_id, **_answer_metadata(answers, len(new))})

    @dg.asset(
        **presentation(
            "judging",
            {"openai" if settings.backend == "openai" else "pytorch", "duckdb"},
            PAIRS,
            code_version=f"{PROMPT_VERSION}.3",
            reads=JUDGE,
            gpu=settings.backend == "local",
        ),
    )
    def pairwise_judge(
        context: dg.AssetExecutionContext,
        judged_answers: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """Which of two finetunes, one of each arm, answers better, judged in both orders: win, tie
        or lose; and over all of them whether one arm is preferred."""
        first, second = settings.first, settings.second
        pairs = answer_pairs(judged_answers, first, second)
        progress = Progress(context, "judging", 2 * len(pairs), "verdicts")
        comparisons = [c for pair in pairs.to_dict("records") for c in orders(pair)]
        with judge_of(study, gpu) as judge:
            asked = ask_all(comparisons, judge, warehouse, progress.advance)
        result = judged_pairs(pairs, asked.verdicts, first, second).assign(judge=judge.name)
        counts = tally(result["outcome"].tolist(), result["position_bias"].tolist())
        if counts.not_judged == len(result):
            raise JudgeError(
                f"none of the {len(result)} comparisons could be judged; the first problem: "
                f"{result['problem'].iloc[0]}"
            )
        if counts.not_judged:
            context.log.warning(
                f"{counts.not_judged} of {len(result)} comparisons could not be judged"
            )
        figure = outcome_figure(counts, first, second, judge.name)
        metadata = _judge_metadata(counts, net_score(result), asked, judge)
        metadata["outcomes"] = png_markdown(figure, f"{first} against {second}: win, tie, lose")
        rule_id = str(judged_answers["rule_id"].iloc[0])
        result = result.assign(rule_id=rule_id, part=judged_answers["part"].iloc[0])
        return table(result[list(PAIRS)], {"rule": rule_id, **metadata})

    check = drawn_by_this_rule_check("judged_answers", "selection_samples")
    return dg.Definitions(assets=[judged_answers, pairwise_judge], asset_checks=[check])


def judged_arms(study: Study) -> dict[str, tuple[str, int]]:
    """Arm and seed of each finetune that answers, by its partition key; none without a judge."""
    if study.judge is None or study.validation is None:
        return {}
    size, judge = study.validation.sizes[0], study.judge
    return {
        arm_key(arm, size, seed): (arm, seed)
        for arm in (judge.first, judge.second)
        for seed in range(judge.seeds)
    }


def trials_of(
    keys: Iterable[str], adapters: pd.DataFrame, samples: pd.DataFrame, settings_id: str
) -> dict[str, str]:
    """The trial of each partition.

    Raises LineageError when it was not finetuned, on another set than the one drawn now, or in
    another way than the profile says (``settings_id``), or over another base than the others:
    what a judge prefers would be that, and not the data.
    """
    found, bases = {}, set()
    for key in keys:
        mine = adapters[adapters["arm"] == key]
        drawn = samples.loc[samples["arm"] == key, "set_id"].unique()
        if len(mine) != 1 or list(mine["set_id"]) != list(drawn):
            raise LineageError(
                f"{key} is not finetuned on the set that is drawn now; materialize "
                "selection_adapters for it first"
            )
        trained = mine.iloc[0]
        bases.add(trained["base_id"])
        if trained["settings_id"] != settings_id or len(bases) > 1:
            what = "other settings" if trained["settings_id"] != settings_id else "another base"
            raise LineageError(
                f"{key} was finetuned with {what}; materialize selection_adapters for all arms "
                "first"
            )
        found[key] = str(trained["trial_id"])
    return found


def rule_of(keys: Iterable[str], samples: pd.DataFrame) -> str:
    """The fingerprint of the rule that the partitions were drawn by.

    Raises LineageError when they were drawn by different ones.
    """
    rules = samples.loc[samples["arm"].isin(list(keys)), "rule_id"].unique()
    if len(rules) != 1:
        raise LineageError(
            f"the judged arms were drawn by {len(rules)} rules; materialize selection_samples for "
            "all arms, and what follows"
        )
    return str(rules[0])


def answer_pairs(answers: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """One row a seed and instruction: eval_id, instruction, input (and turns), seed,
    first_answer, second_answer."""
    texts = ["eval_id", "instruction", "input", *turns_columns(answers)]
    one = answers.loc[answers["arm"] == first, [*texts, "seed", "answer"]]
    two = answers.loc[answers["arm"] == second, ["eval_id", "seed", "answer"]]
    return one.rename(columns={"answer": "first_answer"}).merge(
        two.rename(columns={"answer": "second_answer"}),
        on=["eval_id", "seed"],
        validate="one_to_one",
    )


def _answer_metadata(answers: pd.DataFrame, generated: int) -> dict[str, Any]:
    by_arm = answers.groupby("arm", sort=False)
    summary = pd.DataFrame(
        {
            "mean tokens": by_arm["tokens"].mean(),
            "ended by the model": by_arm["complete"].mean(),
            "empty": by_arm["answer"].apply(lambda texts: (texts == "").mean()),
        }
    ).reset_index()
    return {
        "instructions": answers["eval_id"].nunique(),
        "models that answered in this run": generated,
        "answers": preview(summary),
        "examples": preview(
            answers.sort_values(["eval_id", "seed"])[["instruction", "arm", "seed", "answer"]], 6
        ),
    }


def _judge_metadata(
    counts: Tally, found: NetScore | None, asked: Asked, judge: Endpoint | LocalJudge
) -> dict[str, Any]:
    assert found is not None  # something was judged: see pairwise_judge
    rates = [*counts.shares.items(), ("position bias", counts.position_bias)]
    table = pd.DataFrame(
        [(name, r.count, r.share) for name, r in rates], columns=["", "comparisons", "share"]
    )
    known = {
        "net score, 95 % from": found.low,
        "net score, 95 % to": found.high,
        "its standard error from finetunes": found.finetune_sd,
        "its standard error from instructions": found.instruction_sd,
        "why it cannot tell": found.reason,
    }
    numbers: dict[str, Any] = {
        "verdict": found.verdict,
        "win rate": counts.shares["win"].share,
        "tie rate": counts.shares["tie"].share,
        "lose rate": counts.shares["lose"].share,
        "net score": found.score,
        **{name: value for name, value in known.items() if value is not None},
        "position bias rate": counts.position_bias.share,
        "pairs of finetunes": found.pairs,
        "comparisons judged": counts.position_bias.total,
        "comparisons not judged": counts.not_judged,
        "requests": asked.requests,
        "verdicts from the cache": asked.cached,
        "verdicts that failed": asked.failed,
        "judge": judge.name,
        "shares": preview(table),
    }
    if isinstance(judge, LocalJudge):
        numbers["warning"] = dg.MetadataValue.md(LOCAL_WARNING)
    return numbers
