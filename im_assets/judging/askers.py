"""Who asks the judge: checked when the profile is read, since only registries know."""

from im_assets.experiments.measures import measures_of
from im_assets.scoring.registry import IndicatorError, chosen
from im_resources.judge import JudgeError
from im_resources.study import Study


def rated_by(study: Study) -> list[str]:
    """The names of the indicators that the judge gives."""
    return [i.name for i in chosen(study.scoring) if "judge" in i.backend.uses]


def check_judge(study: Study) -> None:
    """The judge is there where somebody asks it, and not where nobody does.

    Raises IndicatorError, MeasureError or JudgeError.
    """
    names = rated_by(study)
    if names and study.judge is None:
        backend = study.scoring.indicators[names[0]].backend
        raise IndicatorError(
            f"scoring.indicators.{names[0]}: {backend} asks a judge, and the profile has no "
            "`judge` block (docs/judge.md): set judge.backend, judge.base_url and judge.model"
        )
    verdicts = study.validation is not None or any(
        measure.reads == "verdicts" for measure in measures_of(study)
    )
    if study.judge is not None and not names and not verdicts:
        raise JudgeError(
            "judge: nobody asks it: it compares arms of `validation`, which is not set, no measure "
            "of evaluation.measures (such as win_rate) reads its verdicts, and no indicator of "
            "scoring.indicators (such as judge_rating) is its rating"
        )
