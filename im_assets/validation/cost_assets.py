"""selection_costs: what each arm cost, and when that is less than training on the whole pool."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.digests import digest
from im_assets.common.presentation import presentation, preview, table
from im_assets.experiments.assets.trials import evaluation_cuts
from im_assets.experiments.evaluation import evaluation_rows
from im_assets.experiments.experiment import Experiment
from im_assets.experiments.holdout import split_of
from im_assets.rule.document import load_rule
from im_assets.rule.model import Rule
from im_assets.rule.point_experiments import EXPERIMENTS, point_experiments
from im_assets.rule.target import Target, target_measure
from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.cached import loader
from im_assets.scoring.cuts import cuts_of
from im_assets.scoring.registry import chosen
from im_assets.selection.pool import is_plugin
from im_assets.selection.registry import strategy_of
from im_assets.validation.costs import (
    COLUMNS,
    Prices,
    Reads,
    passes_of,
    scoring_flop,
    selection_costs,
    trial_costs,
)
from im_assets.validation.experiment import validation_experiment
from im_assets.validation.figures import cost_figure
from im_resources.gpu import GpuResource
from im_resources.language_model.flops import (
    FlopsError,
    Load,
    forward_flops,
    shape_of,
    training_flops,
)
from im_resources.study import StrategySettings, Study
from im_resources.warehouse import Warehouse

SAMPLE = 2000  # examples whose texts are cut into tokens for other models than the base


def selection_costs_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``selection_costs``."""
    experiment, target = validation_experiment(study), Target.of(study)
    fitted = study.rule.source == "fitted"
    points = point_experiments(study)
    mined = [name for e in points for name in (e.samples, e.adapters)] if fitted else []
    ids = dg.AssetIn(metadata={"columns": ["example_id", "source"]})
    measure = {target.measure: ("double", f"Mean {target.noun}")}
    whole = [
        "validation_runs", experiment.samples, experiment.adapters, "quality_rule", "eval_set",
        "base_losses", *mined, *(["indicator_table"] if fitted else []),
    ]  # fmt: skip

    @dg.asset(
        name="selection_costs",
        description="Operations and recorded seconds of each arm's selection and training, the "
        "rule's mining included, beside what it reached; and from how large a pool on that is "
        "less than training on the whole pool.",
        ins={
            **{name: dg.AssetIn(name) for name in dict.fromkeys(whole)},
            **dict.fromkeys((experiment.pool, "candidate_datasets"), ids),
        },
        **presentation(
            "validation",
            {"python", "duckdb"},
            {**COLUMNS, **measure},
            reads=(
                "finetuning", "models", "rule.source", "rule.points", "rule.target",
                "scoring.score", "scoring.indicators", "evaluation.weighting", "evaluation.holdout",
                "validation.strategies", "selection.near_duplicate_similarity",
            ),
        ),
    )  # fmt: skip
    def costs(
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        counting = Counting(study, gpu, warehouse)
        rule, runs = load_rule(tables["quality_rule"]), tables["validation_runs"]
        pool = counting.lengths(tables, experiment.pool)
        mining = (
            counting.mining(points, tables)
            if fitted
            else (0.0, 0.0, "the rule was there: what mining it took is not counted")
        )
        prices = Prices(
            pool=len(pool),
            each=counting.passes(pool, experiment.pool),
            rule=mining[0],
            rule_seconds=mining[1],
            full=counting.training(pool),
            rule_note=mining[2],
        )
        trials = trial_costs(
            tables[experiment.adapters], tables[experiment.samples], pool, experiment.column,
            counting.shape, study.finetuning,
        )  # fmt: skip
        arms = study.validation.strategies if study.validation else {}
        reads = {name: reads_of(arm, study, rule) for name, arm in arms.items()}
        own = target_measure(study)
        reported = split_of(tables["eval_set"], study.evaluation).reported
        base = own.of(reported.of(tables["base_losses"])) if own.reads == "losses" else None
        found = selection_costs(runs, trials, reads, prices, base, target)
        found = found.assign(rule_id=rule.id)
        metadata: dict[str, Any] = {
            "costs": preview(found, rows=len(found)),
            "operations of mining the rule": prices.rule,
            "operations of training on the whole pool": prices.full,
            "figure": png_markdown(cost_figure(found, target), f"{target.noun} against cost"),
        }
        return table(found, metadata)

    return costs


def reads_of(settings: StrategySettings, study: Study, rule: Rule) -> Reads:
    """What an arm of the validation reads of the pool."""
    strategy, options = strategy_of(settings)
    every = {indicator.name: indicator for indicator in chosen(study.scoring)}
    if is_plugin(settings):
        note = "a plugin's strategy is taken to read every indicator"
        return Reads(passes_of(list(every.values()), True), False, True, note)
    names = {*strategy.needs, *(rule.indicators if strategy.by_rule else ())}
    names |= {str(options["indicator"])} if "indicator" in options else set()
    limited = study.selection.near_duplicate_similarity is not None
    embeds = strategy.embeds or (limited and settings.strategy != "random")
    read = [every[name] for name in sorted(names) if name in every]
    return Reads(passes_of(read, embeds), strategy.by_rule, bool(read or embeds))


class Counting:
    """Counts a study's operations from what it has recorded."""

    def __init__(self, study: Study, gpu: GpuResource, warehouse: Warehouse) -> None:
        self.study, self.gpu, self.warehouse = study, gpu, warehouse
        self.models = Models.of(study, gpu)
        self.shape = shape_of(study.models.needed("base"))

    def lengths(self, tables: Mapping[str, pd.DataFrame], asset: str) -> pd.DataFrame:
        """Of each example of a dataset as it is trained on: index example_id; tokens, learned."""
        examples = tables[asset]
        cuts = cuts_of(examples, self.models, self.warehouse, loader(asset, self.warehouse))
        learned = cuts["response_tokens"] - cuts["response_tokens_cut"]
        found = pd.DataFrame({"tokens": cuts["tokens"], "learned": learned})
        return found.set_index(pd.Index(cuts["example_id"], name="example_id")).astype(float)

    def training(self, lengths: pd.DataFrame) -> float:
        """Of a finetune on all these examples, nan where it is not known."""
        load = Load.of_rows(lengths["tokens"], lengths["learned"]) * self.study.finetuning.epochs
        try:
            return training_flops(self.shape, load, self.study.finetuning)
        except FlopsError:
            return np.nan

    def passes(self, lengths: pd.DataFrame, asset: str) -> dict[str, float]:
        """Of one pass of each model over these examples of a dataset (see Reads)."""
        base = Load.of_rows(lengths["tokens"], lengths["learned"])
        alone = Load.of_rows(lengths["learned"] + 1, lengths["learned"])
        models = self.study.models
        return {
            "base": forward_flops(self.shape, base),
            "responses": forward_flops(self.shape, alone),
            "embedding": self._embedding(lengths.index, asset),
            "reward": np.nan if models.reward is not None else 0.0,
            "unieval": np.nan if models.unieval is not None else 0.0,
        }

    def mining(
        self, points: list[Experiment], tables: Mapping[str, pd.DataFrame]
    ) -> tuple[float, float, str]:
        """Of the rule, once: operations, recorded seconds of its finetunes, what is left out."""
        asset, study = "candidate_datasets", self.study
        lengths = self.lengths(tables, asset)
        known, scored = tables["indicator_table"], set[str]()
        flop = seconds = 0.0
        evaluation = self._evaluation(tables["eval_set"])
        for experiment in points:
            keys = set(known.loc[known["experiment"] == experiment.name, "partition"])
            column = experiment.column
            members, adapters = (
                tables[name][tables[name][column].isin(keys)]
                for name in (experiment.samples, experiment.adapters)
            )
            trials = trial_costs(adapters, members, lengths, column, self.shape, study.finetuning)
            flop += float(trials["flop"].sum(skipna=False)) + len(trials) * evaluation
            seconds += float(trials["seconds"].sum())
            scored |= set(members["example_id"])
        if study.scoring.score == "members":
            lengths = lengths[lengths.index.isin(scored)]
        each = self.passes(lengths, asset)
        flop += scoring_flop(passes_of(chosen(study.scoring)), each)
        others = sorted(set(study.rule.points) - set(EXPERIMENTS))
        note = f"of the rule's points, {', '.join(others)} are not counted" if others else ""
        return flop, seconds, note

    def _evaluation(self, eval_set: pd.DataFrame) -> float:
        """Of the losses of one finetune."""
        study = self.study
        rows = evaluation_rows(eval_set, study.evaluation)
        cuts = evaluation_cuts(rows, study, self.gpu, self.warehouse)
        outputs = rows.groupby("eval_id", sort=False).size().loc[cuts["example_id"]]
        said = cuts["response_tokens"] - cuts["response_tokens_cut"]
        load = Load.of_prompts(cuts["tokens"], said, outputs.to_numpy())
        settings = study.finetuning if study.finetuning.trainer == "lora" else None
        return forward_flops(self.shape, load, settings)

    def _embedding(self, ids: pd.Index, asset: str) -> float:
        """Of embedding these examples, by the lengths of the texts of a sample of them."""
        if "embedding" not in passes_of(chosen(self.study.scoring)):
            return 0.0
        try:
            shape = shape_of(self.study.models.needed("embedding"), causal=False)
        except FlopsError:
            return np.nan
        some = sorted(ids, key=lambda i: digest(0, f"cost:{i}"))[:SAMPLE]
        batch = ScoringBatch(loader(asset, self.warehouse)(some), self.models)
        texts = [*batch.prompts, *batch.examples["output"]]
        load = Load.of_texts(self.models.embedded_lengths(texts))
        return forward_flops(shape, load * (len(ids) / len(some)))
