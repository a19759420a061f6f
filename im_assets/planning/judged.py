"""How many answers, verdicts and ratings there are to come, and how many are there."""

from collections.abc import Mapping, Sequence

import pandas as pd

from im_assets.experiments.answering import CACHE as ANSWERS
from im_assets.experiments.answering import answers_fingerprint, asked_of
from im_assets.experiments.experiment import Experiment
from im_assets.experiments.holdout import reported_rows
from im_assets.experiments.measures import rows_read
from im_assets.experiments.points import instructions_id_of
from im_assets.judging.assets import answer_pairs, judged_arms
from im_assets.judging.comparing import asked_instructions
from im_assets.judging.rating import Shown
from im_assets.judging.ratings import cached_ratings
from im_assets.judging.verdicts import orders
from im_assets.planning.work import Work
from im_assets.scoring.batch import Models
from im_assets.scoring.cached import loader
from im_assets.scoring.registry import chosen
from im_assets.scoring.scorer import unscored
from im_resources.judge import judge_fingerprint
from im_resources.study import Study
from im_resources.warehouse import Warehouse

JUDGED, VERDICTS = "judged_answers", "judge_cache"


def of_measures(
    experiment: Experiment,
    trials: Mapping[str, str] | None,
    study: Study,
    warehouse: Warehouse,
    base: str | None,
) -> list[Work]:
    """What the study's measures read of an experiment's finetunes beside losses.

    Args:
        trials: of each partition key; None: not known.
        base: fingerprint of the base model; None: it is out of reach.
    """
    kinds, count = rows_read(study), len(experiment.keys)
    if trials is None or base is None or not warehouse.has_table("eval_set"):
        return [_at_most(experiment.asset(kind), f"sets of {kind}", count) for kind in kinds]
    eval_set, distinct = warehouse.read_table("eval_set"), set(trials.values())
    found = []
    if "answers" in kinds:
        asked, most = asked_of(study, eval_set), study.evaluation.answer_tokens
        keys = {answers_fingerprint(trial, asked, study, most) for trial in distinct}
        name = experiment.asset("answers")
        found.append(_work(name, "sets of answers", keys, there(warehouse, ANSWERS, "fingerprint")))
    if "verdicts" in kinds and study.judge is not None:
        name = experiment.asset("verdicts")
        made: set[str] = set()
        if warehouse.has_table(name):
            rows = warehouse.read_table(name, ["trial_id", "instructions_id", "judge_id"])
            mine = rows["judge_id"] == judge_fingerprint(study.judge, base)
            mine &= rows["instructions_id"] == instructions_id_of(study, eval_set)
            made = set(rows.loc[mine, "trial_id"])
        found.append(_work(name, "sets of verdicts", distinct, made))
    return found


def of_the_judge(
    trials: Mapping[str, str] | None, study: Study, warehouse: Warehouse, base: str | None
) -> list[Work]:
    """Answers of the finetunes that are compared, and the verdicts on them, in both orders.

    Args:
        trials: of each partition of the validation; None: not known.
        base: fingerprint of the base model; None: it is out of reach.
    """
    judge, arms = study.judge, judged_arms(study)
    if judge is None or not arms:
        return []
    unknown = [
        _at_most(JUDGED, "sets of answers", len(arms)),
        _at_most("pairwise_judge", "verdicts", 2 * judge.instructions * judge.seeds),
    ]
    if trials is None or base is None or not warehouse.has_table("eval_set"):
        return unknown
    rows = reported_rows(warehouse.read_table("eval_set"), study.evaluation)
    asked = asked_instructions(rows, judge)
    mine = {trials[key] for key in arms}
    keys = {answers_fingerprint(trial, asked, study, judge.answer_tokens) for trial in mine}
    answers = _work(JUDGED, "sets of answers", keys, there(warehouse, ANSWERS, "fingerprint"))
    if answers.left or not warehouse.has_table(JUDGED):
        return [answers, unknown[1]]
    table = warehouse.read_table(JUDGED)
    if "seed" not in table or set(table["fingerprint"]) != keys:
        return [answers, unknown[1]]
    pairs = answer_pairs(table, judge.first, judge.second).to_dict("records")
    who = judge_fingerprint(judge, base)
    comparisons = {c.key(who) for pair in pairs for c in orders(pair)}
    verdicts = _work("pairwise_judge", "verdicts", comparisons, there(warehouse, VERDICTS, "key"))
    return [answers, verdicts]


def of_ratings(
    asset: str,
    examples: str,
    ids: Sequence[str] | None,
    models: Models,
    warehouse: Warehouse,
    most: int | None = None,
) -> list[Work]:
    """The ratings that an asset's scores need; none where no indicator is a judge's.

    Args:
        examples: the table with the texts.
        ids: of the examples that are scored; None: not known, or no score can be.
        most: how many there are at most.
    """
    study = models.study
    wanted = [i for i in chosen(study.scoring) if "judge" in i.backend.uses]
    if not wanted or study.judge is None:
        return []
    if ids is None:
        return [Work(asset, "other", "ratings", most, at_most=most is not None)]
    missing = list(unscored(ids, wanted, models, warehouse))
    rows = loader(examples, warehouse)(missing).to_dict("records") if missing else []
    keys = {Shown.of(row).key(models.fingerprint("judge")) for row in rows}
    left = len(keys - set(cached_ratings(keys, warehouse)))
    budget, limited = study.judge.max_requests, study.judge.backend == "openai"
    note = f"judge.max_requests is {budget:,}: the step stops there, and goes on when run again"
    over = limited and left > budget
    found = len(ids) - left
    return [Work(asset, "other", "ratings", len(ids), found, note=note if over else "")]


def there(warehouse: Warehouse, table: str, column: str) -> set[str]:
    """The keys under which a cache holds something."""
    if not warehouse.has_table(table):
        return set()
    found: pd.Series = warehouse.query(f'SELECT DISTINCT "{column}" FROM "{table}"')[column]
    return set(found)


def _work(asset: str, unit: str, keys: set[str], made: set[str]) -> Work:
    return Work(asset, "other", unit, len(keys), len(keys & made))


def _at_most(asset: str, unit: str, count: int) -> Work:
    return Work(asset, "other", unit, count, at_most=True)
