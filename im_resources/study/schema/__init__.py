"""The profile's schema: every setting, typed, described and bounded.

Everything that can change a result is a field here, so that a study is reproducible from its
profile alone.
"""

from im_resources.study.schema.base import Name, PoolName, Positive, Settings
from im_resources.study.schema.data import CleaningSettings, DataSettings, DataSource
from im_resources.study.schema.evidence import (
    JudgeSettings,
    TransferSettings,
    UnivariateSettings,
    ValidationSettings,
)
from im_resources.study.schema.experiments import (
    EvaluationSettings,
    FinetuningSettings,
    MixtureSettings,
    ProposalSettings,
)
from im_resources.study.schema.mining import MiningSettings
from im_resources.study.schema.models import ModelSettings, ModelSource
from im_resources.study.schema.operations import AlertSettings, LandingSettings, RefitSettings
from im_resources.study.schema.rule import RuleSettings, Shape, TargetSettings
from im_resources.study.schema.runs import RunsSettings
from im_resources.study.schema.scoring import IndicatorSettings, ScoringSettings
from im_resources.study.schema.selection import SearchSettings, SelectionSettings, StrategySettings
from im_resources.study.schema.study import Study

__all__ = [
    "AlertSettings",
    "CleaningSettings",
    "DataSettings",
    "DataSource",
    "EvaluationSettings",
    "FinetuningSettings",
    "IndicatorSettings",
    "JudgeSettings",
    "LandingSettings",
    "MiningSettings",
    "MixtureSettings",
    "ModelSettings",
    "ModelSource",
    "Name",
    "PoolName",
    "Positive",
    "ProposalSettings",
    "RefitSettings",
    "RuleSettings",
    "RunsSettings",
    "ScoringSettings",
    "SearchSettings",
    "SelectionSettings",
    "Settings",
    "Shape",
    "StrategySettings",
    "Study",
    "TargetSettings",
    "TransferSettings",
    "UnivariateSettings",
    "ValidationSettings",
]
