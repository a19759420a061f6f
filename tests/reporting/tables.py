"""A small simulated study with every table, made by the platform's own functions where it can."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from im_assets.evidence.evidence import rule_findings
from im_assets.experiments.points import Parts
from im_assets.rounds.deciding import Decision, decided
from im_assets.rounds.errors import Estimate
from im_assets.rounds.experiment import arms_of as rounds_arms
from im_assets.rounds.experiment import round_experiments
from im_assets.rounds.measured import Round
from im_assets.rounds.telling import rounds_table
from im_assets.rule.document import coefficient_table
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Rule
from im_assets.rule.target import Target
from im_assets.shares.telling import shares_table
from im_assets.univariate.study import univariate_correlations
from im_assets.validation.arms import arms_of
from im_assets.validation.noise import noise_floor
from im_assets.validation.verdicts import deciles, validation_runs, verdicts
from im_resources.lake_address import LakeAddress
from im_resources.study import ProposalSettings, RuleSettings, Study, fingerprint
from im_resources.warehouse import Warehouse

NAMES = ["len_out", "reward", "ppl", "mtld", "nat"]
SLOPES = {"len_out": 0.00015, "reward": -0.15, "ppl": 0.0009, "mtld": 0.0, "nat": 0.0}
CENTRES = {"len_out": 60.0, "reward": 0.4, "ppl": 24.0, "mtld": 70.0, "nat": 0.8}
SPREADS = {"len_out": 12.0, "reward": 0.04, "ppl": 3.0, "mtld": 6.0, "nat": 0.03}
HOSTILE = 'Say <script>alert("x")</script> & <b onmouseover=steal()>hello</b>'
SIZE = 200
RULE = RuleSettings(bootstrap=20, permutations=20)


def make_study(name: str = "simulated", **changes: Any) -> Study:
    source = {"path": "none.jsonl"}
    settings: dict[str, Any] = {
        "name": name,
        "label": "demo-scale",
        "data": {"candidates": {"a": source, "b": source}, "unseen": source, "evaluation": source},
        "models": {"base": {"path": "none"}, "embedding": {"path": "none"}},
        "mixtures": {"seeds": 24, "size": 100},
        "scoring": {"score": "all", "indicators": dict.fromkeys(NAMES, "response_length")},
        "univariate": {"bins": 8},
        "mining": {"rounds": 3},
        "rule": RULE.model_dump(),
        "validation": {"sizes": [SIZE], "seeds": 3, "deciles": 10},
        "judge": {"backend": "local"},
        "transfer": {"study": "smaller"},
        "selection": {"size": "searched"},
    }
    return Study.model_validate(settings | changes)


def without_parts() -> Study:
    """The same study without the parts that a profile can leave out."""
    parts: dict[str, Any] = dict.fromkeys(
        ["univariate", "validation", "mining", "judge", "transfer"]
    )
    return make_study("simulated", **parts, selection={"size": 50})


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def mixtures(seeds: int = 24) -> pd.DataFrame:
    rng = generator(0)
    x = pd.DataFrame({n: rng.normal(CENTRES[n], SPREADS[n], seeds) for n in NAMES})
    log_loss = 0.95 + x @ pd.Series(SLOPES) - 0.03 + rng.normal(0, 0.002, seeds)
    x.insert(0, "experiment", "mixtures")
    x.insert(1, "partition", [f"seed-{i:03d}" for i in range(seeds)])
    x.insert(2, "n_examples", 100)
    loss = np.exp(log_loss)
    x = x.assign(base_id="base", evaluation_id="evaluation", transform="none")
    return x.assign(token_loss=loss, instruction_loss=loss * 1.01, loss=loss, log_loss=log_loss)


@cache
def fitted() -> tuple[pd.DataFrame, Rule, pd.DataFrame]:
    """The mixtures, their rule, and the evidence about it."""
    table = mixtures()
    rule = fit_rule(table, NAMES, RULE)
    sources = {seed: "ab"[i % 2] for i, seed in enumerate(table["partition"])}
    return table, rule, rule_findings(table, sources, rule, RULE)


@cache
def univariate() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = generator(2)
    rows = []
    for name in NAMES:
        for k in range(8):
            mean = CENTRES[name] + SPREADS[name] * (7 - 2 * k)
            log_loss = 0.85 + SLOPES[name] * (mean - CENTRES[name]) + rng.normal(0, 0.004)
            rows.append((name, k, 100, mean, mean, float(np.exp(log_loss)), log_loss))
    bins = pd.DataFrame(
        rows, columns=["indicator", "bin", "examples", "mean", "scaled_mean", "loss", "log_loss"]
    )
    return bins, univariate_correlations(bins, resamples=100)


def sources(table: pd.DataFrame) -> pd.DataFrame:
    """What the sources are worth: of shares that have nothing to do with the losses."""
    first = generator(8).uniform(0.2, 0.8, len(table))
    shares = pd.DataFrame({"a": first, "b": 1 - first}, index=table["partition"])
    values = table.set_index("partition")["log_loss"]
    return shares_table(shares, values, {"a": 300, "b": 100}, ProposalSettings(), 0.95, Target())


def rounds(study: Study) -> pd.DataFrame:
    """Two rounds of sets like mixtures, the second of which was worse; the third was not made."""
    table, rule, _ = fitted()
    nothing = pd.DataFrame()
    found: list[Round] = []
    decisions: list[Decision] = []
    for number, experiment in enumerate(round_experiments(study), 1):
        keys = list(experiment.keys)
        strategies = [arm.name for arm in rounds_arms(study, number).values()]
        points = table.head(len(keys)).assign(partition=keys, strategy=strategies)
        points["log_loss"] += generator(number).normal(0, 0.004 * number, len(keys))
        errors = [one.errors for one in found]
        decisions.append(decided(errors, rule))
        points = points if decisions[-1].goes_on else points[:0]
        parts = Parts(experiment, nothing, nothing, nothing, nothing)
        found.append(Round(number, rule, points, parts))
    gains = [Estimate(-0.01, -0.03, 0.01), Estimate(-0.02, -0.03, -0.01), None]
    return rounds_table(found, decisions, gains)


def validated(study: Study) -> dict[str, pd.DataFrame]:
    assert study.validation is not None
    rng = generator(3)
    arms = arms_of(study.validation, study.selection)
    shift = {"rule": -0.004, "length": 0.1, "reward": -0.1}
    losses = {
        key: 2.30 + shift.get(arm.name, 0.0) + 0.008 * arm.slice + rng.normal(0, 0.006)
        for key, arm in arms.items()
    }
    rule_id = fitted()[1].id
    runs = validation_runs(losses, arms).assign(rule_id=rule_id)
    # What each would be without one of eight groups of instructions.
    runs["loss_without"] = [list(loss + rng.normal(0, 0.0005, 8)) for loss in runs["loss"]]
    return {
        "validation_runs": runs,
        "noise_floor": noise_floor(runs, ["loss"]),
        "selection_validation": verdicts(runs).assign(rule_id=rule_id),
        "rule_deciles": deciles(runs, np.linspace(0.7, 0.95, 10), resamples=100).assign(
            rule_id=rule_id
        ),
    }


def pool(rows: int = 60) -> pd.DataFrame:
    texts = [HOSTILE, *(f"Instruction number {i}: tell of the river" for i in range(1, rows))]
    return pd.DataFrame(
        {
            "example_id": [f"{i:016x}" for i in range(rows)],
            "source": "unseen",
            "instruction": texts,
            "input": "",
            "output": [f"The river answer {i} is long. " * 40 for i in range(rows)],
            "category": "qa",
            "language": ["en", "zh"] * (rows // 2),
            "language_confidence": 0.9,
        }
    )


def judged(instructions: int = 20) -> pd.DataFrame:
    """Two pairs of finetunes over the same instructions, alike in what they win and lose."""
    outcomes = ["win"] * 7 + ["tie"] * 8 + ["lose"] * 5
    rows = range(2 * instructions)
    return pd.DataFrame(
        {
            "eval_id": [f"e{i}" for i in range(instructions)] * 2,
            "seed": [0] * instructions + [1] * instructions,
            "instruction": "Judged instruction",
            "first_answer": "First answer text",
            "second_answer": "Second answer text",
            "order_1": ["rule" if i % 3 else "tie" for i in rows],
            "order_2": ["rule" if i % 2 else "random" for i in rows],
            "outcome": outcomes + outcomes[1:] + [None],
            "judge": "local",
            "problem": [None] * (2 * instructions - 1) + ["no verdict"],
        }
    )


def tables(study: Study) -> Mapping[str, pd.DataFrame]:
    """Every table of the report by name; those that the study leaves out are not there."""
    (table, rule, findings), examples = fitted(), pool()
    rng = generator(4)
    values = pd.DataFrame({n: rng.normal(CENTRES[n], SPREADS[n], len(examples)) for n in NAMES})
    ranked = pd.concat([examples, values], axis=1)
    ranked["predicted_log_loss"] = rule.predict_examples(ranked)
    ranked.loc[0, "predicted_log_loss"] = 0.0  # the hostile one is the best
    ranked = ranked.sort_values("predicted_log_loss", ignore_index=True)
    ranked.insert(0, "rank", range(1, len(ranked) + 1))
    scores = values.assign(example_id=examples["example_id"]).melt(
        "example_id", var_name="indicator"
    )
    drawn = pd.DataFrame(
        {"seed": ["seed-000"] * 3, "example_id": ["x", "y", "z"], "source": ["a", "a", "b"]}
    )
    found: dict[str, pd.DataFrame] = {
        "candidate_datasets": pd.DataFrame({"source": ["a"] * 30 + ["b"] * 20}).assign(
            language="en", language_confidence=0.9
        ),
        "mixed_samples": drawn,
        "quarantined_examples": pd.DataFrame(
            {
                "dataset": ["candidate_datasets"] * 3 + ["dolly_dataset"],
                "source": ["a", "a", "b", "unseen"],
                "kind": ["exact duplicate", "too long", "empty", None],
                "reason": ["exact duplicate of line 2", "too long: 9", "empty output", "too long"],
            }
        ),
        "eval_set": pd.DataFrame({"eval_id": ["e0", "e0", "e1"], "instruction": "Ask"}),
        "dolly_dataset": examples,
        "dolly_scores": scores.assign(fingerprint="version 1"),
        "dolly_indicators": values.assign(example_id=examples["example_id"]),
        "dolly_selection": ranked.drop(columns="source").head(20),
        "indicator_table": table,
        "base_losses": pd.DataFrame(
            {"eval_id": ["e0", "e1"], "nll": [26.0, 24.0], "tokens": [10, 10], "loss": [2.6, 2.4]}
        ).assign(fingerprint=fingerprint("base", "evaluation")),
        "quality_rule": coefficient_table(rule),
        "rule_evidence": findings,
        "source_shares": sources(table),
    }
    if study.univariate:
        found["univariate_bins"], found["univariate_study"] = univariate()
    if study.mining:
        found["mining_rounds"] = rounds(study)
    if study.validation:
        found |= validated(study)
    if study.judge:
        found["pairwise_judge"] = judged()
    if study.selection.size == "searched":
        found["size_search"] = pd.DataFrame(
            [(m, t, 50 * (t + 1), 2.3 - t / 100, 2.31 - t / 90, t == 3)
             for m in ("blend_search", "grid") for t in range(4)],
            columns=["method", "trial", "size", "search_loss", "report_loss", "chosen"],
        )  # fmt: skip
    if study.transfer:
        found["proxy_transfer"] = pd.DataFrame(
            [
                ("rule_on_larger_model", "spearman", 0.61, 0.3, 0.8, 24, None, None, "the rule"),
                (
                    "rule_on_larger_model",
                    "decision_accuracy",
                    0.72,
                    0.6,
                    0.85,
                    24,
                    0.8,
                    "open",
                    "share of 276 pairs ordered alike",
                ),
            ],
            columns=["item", "measure", "value", "low", "high", "n", "goal", "verdict", "note"],
        )
    about_the_rule = ["rule_evidence", "dolly_selection", "pairwise_judge", "size_search"]
    return found | {n: found[n].assign(rule_id=rule.id) for n in about_the_rule if n in found}


def fill(path: Path | LakeAddress, study: Study) -> Warehouse:
    """A warehouse with the tables of the study."""
    warehouse = Warehouse(path)
    for name, frame in tables(study).items():
        warehouse.replace_table(name, frame)
    return warehouse
