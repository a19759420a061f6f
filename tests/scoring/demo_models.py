"""Studies on the demo's real models, in fp32 so that numbers agree on every CPU."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from im_assets.scoring.batch import Models
from im_resources.gpu import GpuResource
from im_resources.study import PROJECT_ROOT, ScoringSettings, Study, load_study


def demo_study(
    indicators: Mapping[str, Any], chunk: int = 4, models: Mapping[str, Any] | None = None
) -> Study:
    """The demo profile with these indicators, and with changes to its `models` block."""
    study = load_study("demo")
    settings = study.models.model_copy(update={"precision": "fp32", **(models or {})})
    scoring = ScoringSettings(indicators=dict(indicators), chunk=chunk)
    return study.model_copy(update={"models": settings, "scoring": scoring})


def models_of(study: Study) -> Models:
    """The study's models on the CPU, one worker."""
    return Models.of(study, GpuResource(device="cpu", side_by_side=1))


def sample(name: str, rows: int | None = None) -> pd.DataFrame:
    """The first examples of a file of sample_data."""
    lines = (PROJECT_ROOT / "sample_data" / f"{name}.jsonl").read_text("utf-8").splitlines()
    frame = pd.DataFrame([json.loads(line) for line in lines[:rows]])
    return frame.assign(example_id=[f"{name}-{i}" for i in range(len(frame))])
