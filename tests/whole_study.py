"""A study with every part that a profile can have, run once for all tests that look at one."""

import json
from pathlib import Path

import dagster as dg
import pytest

from tests.language_model.models import write_model
from tests.study import Platform, write_data, write_profile

SEARCH = {"smallest": 2, "largest": 9, "trials": 3}
ARMS = {"rule": "rule", "random": "random"}


def write_whole_profile(home: Path) -> Path:
    """Two unseen pools, a searched size, bins as points of the rule, a validation and a judge."""
    data = write_data(home / "data")
    rows = [
        {"instruction": f"Which {n}?", "output": f"The {n}th, and no other. " * (1 + n % 4)}
        for n in range(15)
    ]
    mine = home / "data" / "mine.jsonl"
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data["unseen"] = {"dolly": data["unseen"], "mine": {"path": str(mine)}}
    return write_profile(
        home,
        write_model(home / "model"),
        "whole",
        data=data,
        mixtures={"seeds": 6},
        univariate={"indicators": ["len_out"], "bins": 4, "size": 4},
        rule={"points": ["mixtures", "univariate", "validation"]},
        selection={"size": "searched", "search": SEARCH},
        validation={
            "strategies": ARMS, "sizes": [4], "seeds": 2, "random_seeds": 2, "deciles": 4,
            "noise_repeats": 2,
        },
        judge={"backend": "local", "instructions": 2, "answer_tokens": 4},
    )  # fmt: skip


def run_whole_study(home: Path) -> None:
    """Run every job of the study, which ``whole.yaml`` there is the profile of."""
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        Platform(write_whole_profile(home), instance).run_all()
