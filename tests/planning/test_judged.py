"""How many answers and verdicts a judge will be asked for, before and after they are there."""

from pathlib import Path
from typing import Any

import pandas as pd

from im_assets.experiments.answering import CACHE, answers_fingerprint
from im_assets.judging.assets import answer_pairs, judged_arms
from im_assets.judging.comparing import asked_instructions
from im_assets.judging.verdicts import orders
from im_assets.planning.judged import JUDGED, VERDICTS, of_the_judge
from im_resources.judge import judge_fingerprint
from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse
from tests.experiments.small_study import write_profile

EVAL_SET = pd.DataFrame(
    [(f"e{i}", 0, f"Say {w}.", "", f"{w}!") for i, w in enumerate("abcd")],
    columns=["eval_id", "output_index", "instruction", "input", "output"],
)


def judged(folder: Path, **judge: Any) -> Study:
    return load_study(
        write_profile(
            folder,
            {"path": "none"},
            validation={"sizes": [4], "deciles": 0},
            judge={"instructions": 3, "take": "first", **judge},
        )
    )


def counts(study: Study, warehouse: Warehouse) -> list[tuple[str, int | None, int | None, bool]]:
    trials = {key: f"trial of {key}" for key in judged_arms(study)}
    found = of_the_judge(trials, study, warehouse, "base")
    return [(work.asset, work.total, work.left, work.at_most) for work in found]


def test_before_anything_two_requests_an_instruction_and_pair_of_finetunes(tmp_path: Path) -> None:
    for seeds in (1, 2, 3):
        study = judged(tmp_path, seeds=seeds)
        found = counts(study, Warehouse(tmp_path / "empty.duckdb"))
        assert found == [
            ("judged_answers", 2 * seeds, 2 * seeds, True),
            ("pairwise_judge", 2 * 3 * seeds, 2 * 3 * seeds, True),
        ]


def test_answers_and_verdicts_that_are_there_are_counted_once(tmp_path: Path) -> None:
    study, warehouse = judged(tmp_path), Warehouse(tmp_path / "study.duckdb")
    assert study.judge is not None
    warehouse.replace_table("eval_set", EVAL_SET)
    asked = asked_instructions(EVAL_SET, study.judge)
    answers = pd.concat(
        [
            asked.assign(
                arm=arm,
                seed=seed,
                # Both finetunes of an arm answer alike, but to the first instruction.
                answer=[f"{arm} {seed}", f"{arm} 1", f"{arm} 2"],
                fingerprint=answers_fingerprint(
                    f"trial of {key}", asked, study, study.judge.answer_tokens
                ),
            )
            for key, (arm, seed) in judged_arms(study).items()
        ]
    )
    warehouse.replace_table(CACHE, answers[["fingerprint"]].drop_duplicates())
    assert counts(study, warehouse)[0] == ("judged_answers", 4, 0, False)
    warehouse.replace_table(JUDGED, answers)
    # Six comparisons, of which two are the same texts again: four, each in both orders.
    assert counts(study, warehouse)[1] == ("pairwise_judge", 8, 8, False)
    first = answer_pairs(answers, "rule", "random").to_dict("records")[0]
    key = orders(first)[0].key(judge_fingerprint(study.judge, "base"))
    warehouse.replace_table(VERDICTS, pd.DataFrame({"key": [key, "of another judge"]}))
    assert counts(study, warehouse)[1] == ("pairwise_judge", 8, 7, False)
