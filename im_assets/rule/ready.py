"""Rules that are ready: one of the paper's, or a quality_rule.json that another study wrote."""

from im_assets.rule.document import read_rule
from im_assets.rule.model import Rule
from im_assets.rule.provenance import KINDS, differences
from im_assets.rule.published import published_rule
from im_assets.rule.target import Target
from im_assets.rule.transform import Transform
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_resources.study import RuleSettings, Study, did_you_mean, resolve_path


class RuleError(ValueError):
    """A ready rule that cannot be applied; says which, why, and what would do."""


def ready_rule(settings: RuleSettings) -> Rule:
    """The rule that the settings name, without what was said of where it was applied before.

    Raises RuleError when it is fitted here, or its file is missing or damaged.
    """
    if settings.source == "fitted":
        raise RuleError("rule.source: fitted names no ready rule")
    if settings.source != "file":
        return published_rule(settings.source)
    assert settings.path is not None
    path = resolve_path(settings.path)
    if not path.is_file():
        raise RuleError(
            f"rule.path: there is no file {path}; a study writes its rule to quality_rule.json in "
            "its own folder, when it has been materialized"
        )
    try:
        rule = read_rule(path)
    except OSError as error:
        raise RuleError(f"rule.path: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RuleError(
            f"rule.path: {path}: {error}; give the quality_rule.json of a study"
        ) from error
    own = tuple(warning for warning in rule.warnings if warning.kind not in KINDS)
    return rule.model_copy(update={"warnings": own})


def check_ready_rule(study: Study) -> None:
    """Check a ready rule when the profile is read.

    Raises RuleError when it cannot be read, ranks nothing, reads an indicator that the profile does
    not compute, or predicts something else than ``rule.target``.
    """
    settings = study.rule
    if settings.source == "fitted":
        return
    rule, known = ready_rule(settings), list(study.scoring.indicators)
    path = settings.path
    place = f"rule.source: {settings.source}" if path is None else f"rule.path: {path}"
    if not rule.indicators:
        raise RuleError(
            f"{place}: the rule has no indicator, since none told its mixtures apart, and so ranks "
            "nothing"
        )
    backends = {used.name: used.backend for used in rule.indicators_used}
    lacking = [name for name in rule.indicators if name not in known]
    if lacking:
        lines = [f"{n}: {backends.get(n, '<backend>')}{did_you_mean(n, known)}" for n in lacking]
        raise RuleError(
            f"{place} reads {', '.join(lacking)}, which the profile does not compute; "
            f"scoring.indicators has: {', '.join(known)}; add: {', '.join(lines)}"
        )
    if rule.predicts != Target.of(study):
        asked, of = Target.of(study), rule.predicts
        raise RuleError(
            f"{place} predicts the {of.label} ({of.direction} is better), and rule.target asks for "
            f"the {asked.label}; set rule.target: {{measure: {of.measure}, scale: {of.scale}, "
            f"direction: {of.direction}}}"
        )


def applied_rule(study: Study, models: Models) -> Rule:
    """The study's ready rule, with a caution for all that is not as it was when it was fitted.

    Raises RuleError as `check_ready_rule` does.
    """
    check_ready_rule(study)
    rule = ready_rule(study.rule)
    cautions = differences(rule, chosen(study.scoring), models)
    return rule.model_copy(update={"warnings": (*rule.warnings, *cautions)})


def transform_of(study: Study) -> Transform:
    """The scale that the study's points are on: a ready rule brings its own.

    Raises RuleError as `ready_rule` does.
    """
    if study.rule.source == "fitted":
        return study.rule.transform
    return ready_rule(study.rule).transform


def set_size(rule: Rule, study: Study) -> int:
    """Examples of the sets that the rule speaks of: on their scale KNN-i and its like are taken.

    Those that it was fitted on; where a file does not say, those of the profile's mixtures. Of runs
    that were made elsewhere, the median.
    """
    if study.rule.source == "fitted" and study.runs is None:
        return study.mixtures.size
    return rule.set_size or study.mixtures.size
