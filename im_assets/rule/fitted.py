"""The rule of a table of points, with what it was fitted on and how its indicators were made."""

import pandas as pd

from im_assets.common.versions import content_version
from im_assets.experiments.points import values_fingerprint
from im_assets.rule.checks import made_with
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Rule
from im_assets.rule.provenance import provenance
from im_assets.rule.target import Target
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_resources.study import Study


def fitted_rule(points: pd.DataFrame, study: Study, models: Models) -> Rule:
    """The rule that the study's settings choose and fit on these points (see ``points_of``).

    Raises ValueError as ``fit_rule`` does.
    """
    found = chosen(study.scoring)
    rule = fit_rule(points, list(study.scoring.indicators), study.rule, Target.of(study))
    values_id = str(points["values_id"].iloc[0])
    # Own runs differ in their sizes, and a set's properties are asked of one.
    size = None if study.runs is None else round(points["n_examples"].median())
    as_now = values_id == values_fingerprint(found, study, models)
    return rule.model_copy(
        update={
            "points_id": content_version(points),
            "values_id": values_id,
            "trials": tuple(points["trial_id"].astype(str)),
            "made_with": made_with(points),
            # Of other versions than the profile's nobody knows what they were.
            **(provenance(found, models, size) if as_now else {}),
        }
    )
