"""With which indicators and models a rule was fitted, and whether a profile computes the same.

A rule is a formula over numbers: applied to numbers of the same names that were made otherwise, it
ranks with confidence, and by nothing. So a fitted rule carries what its indicators were computed
with, and where it is applied both are compared. What makes other numbers of an indicator is
``not_as_fitted``; what leaves the ranking possible but unproven is ``unproven``. The published
rules were fitted with models that few have: of these everything is ``unproven``.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from im_assets.rule.model import Caution, Rule, UsedIndicator, UsedModel
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import Indicator
from im_resources.study import ModelSource, Study

BLOCKING = "not_as_fitted"
KINDS = (BLOCKING, "unproven")


def provenance(
    indicators: Sequence[Indicator], models: Models, size: int | None = None
) -> dict[str, Any]:
    """The fields of a Rule that say what its indicators were computed with, and for which sets.

    Args:
        size: examples of a set that it was fitted on; default: those of the profile's mixtures.

    Raises ModelError when a model is not there.
    """
    used = tuple(map(_used, indicators))
    study = models.study
    # Of runs that were made elsewhere the base is not known.
    base = ["base"] if study.runs is None else []
    roles = dict.fromkeys([*base, *(role_of(use) for one in used for use in one.uses)])
    return {
        "fitted_by": f"{study.name} ({study.label})" if study.label else study.name,
        "indicators_used": used,
        "models_used": tuple(_model(role, models) for role in roles),
        "set_size": study.mixtures.size if size is None else size,
    }


def differences(rule: Rule, indicators: Sequence[Indicator], models: Models) -> list[Caution]:
    """How the profile's indicators and models differ from those that the rule was fitted with.

    Args:
        indicators: the profile's, among which are the rule's.

    Raises ModelError when a model of the profile is not there.
    """
    now = {indicator.name: indicator for indicator in indicators}
    used = [one for one in rule.indicators_used if one.name in rule.indicators]
    if lacking := sorted(set(rule.indicators) - {one.name for one in used}):
        note = (
            f"The rule does not say how {', '.join(lacking)} was computed when it was fitted: "
            "nobody can tell whether this profile computes the same. Materialize quality_rule of "
            "its study again, which writes it down."
        )
        return [Caution(kind="unproven", note=note)]
    found: list[Caution] = []
    alike = []
    for one in used:
        cautions = list(_of_indicator(one, now[one.name]))
        found += cautions
        if not cautions:
            alike.append(one)
    for model in rule.models_used:
        readers = [o.name for o in alike if model.role in map(role_of, o.uses)]
        if readers or model.role == "base":
            passes = [o.name for o in alike if "base" in o.uses]
            found += _of_model(model, readers, passes if model.role == "base" else [], models)
    if rule.source == "fitted":
        return found
    return [caution.model_copy(update={"kind": "unproven"}) for caution in found]


def named(source: ModelSource) -> str:
    """A model's name in words: its hub id, the name of its folder, or its package and file."""
    if source.hub is not None:
        return source.hub
    if source.path is not None:
        return source.path.rstrip("/").rpartition("/")[2]
    return f"{source.package}/{source.file}"


def model_name(study: Study, role: str) -> str | None:
    """The profile's model of a role, in words; None where it sets none."""
    if role == "judge" and study.judge is not None and study.judge.backend == "openai":
        return study.judge.model
    source = _source(study, "base" if role == "judge" else role)
    return None if source is None else named(source)


def _used(indicator: Indicator) -> UsedIndicator:
    backend = indicator.backend
    weights = backend.weights.read_bytes() if backend.weights is not None else None
    return UsedIndicator(
        name=indicator.name,
        backend=backend.name,
        version=backend.version,
        options=indicator.options,
        weights=hashlib.sha256(weights).hexdigest()[:16] if weights is not None else "",
        uses=backend.uses,
    )


def role_of(use: str) -> str:
    """Whose weights a backend reads: the tokenizer is the base model's."""
    return "base" if use == "tokenizer" else use


def _source(study: Study, role: str) -> ModelSource | None:
    return cast("ModelSource | None", getattr(study.models, role))


def _model(role: str, models: Models) -> UsedModel:
    from im_resources.language_model.loading import effective_precision, locate

    settings = models.study.models
    if role == "judge":  # another endpoint may serve another model of the name
        name, key = model_name(models.study, role), models.fingerprint("judge")
        return UsedModel(role="judge", name=name or "", weights=key)
    source = settings.needed(role)
    found: dict[str, Any] = {"role": role, "name": named(source), "weights": locate(source)[2]}
    if role == "base":
        device = models.gpu.torch_device()
        found |= {
            "prompt": settings.prompt,
            "max_length": settings.max_length,
            "precision": effective_precision(source, settings.precision, device),
        }
    return UsedModel(**found)


def _of_indicator(used: UsedIndicator, indicator: Indicator) -> Iterator[Caution]:
    mine, name = _used(indicator), used.name
    if not indicator.backend.cached and mine.backend == used.backend:
        note = f"{name} is read, not computed: that it is the number the rule was fitted on is "
        note += "for you to know."
        yield Caution(kind="unproven", indicator=name, note=note)
        return
    if mine.backend != used.backend:
        now, then = mine.backend, used.backend
    elif mine.options != used.options and used.version is not None:
        now, then = f"the options {mine.options}", f"{dict(used.options)}"
    elif used.version is not None and (mine.version, mine.weights) != (used.version, used.weights):
        now, then = f"version {mine.version} of {mine.backend}", f"version {used.version}"
        if mine.version == used.version:
            now, then = f"other weights of {mine.backend}", "its earlier ones"
    else:
        return
    note = f"{name} is computed with {now}, and the rule was fitted with {then}."
    yield Caution(kind=BLOCKING, indicator=name, note=note)


def _of_model(
    used: UsedModel, readers: Sequence[str], passes: Sequence[str], models: Models
) -> Iterator[Caution]:
    """
    Args:
        readers: the rule's indicators that read the model, or its tokenizer.
        passes: those of them that the base model itself computes.
    """
    if model_name(models.study, used.role) is None:
        return  # only an unread base can be missing
    mine = _model(used.role, models)
    if (mine.weights != used.weights) if used.weights else not _same_name(mine.name, used.name):
        also = (
            f" {', '.join(readers)} read{'s' if len(readers) == 1 else ''} it." if readers else ""
        )
        what = "finetunes of " if used.role == "base" else ""
        field, other = f"models.{used.role}", "of other weights"
        if used.role == "judge":
            field, other = "the judge", "at another place"
        note = (
            f"{field} is {mine.name}, and the rule was fitted with {what}{used.name}"
            f"{f' {other}' if mine.name == used.name else ''}.{also}"
        )
        yield Caution(kind=BLOCKING if readers else "unproven", note=note)
        return
    if not passes or not used.weights:
        return
    read = f" {', '.join(passes)} depend{'s' if len(passes) == 1 else ''} on it."
    for field in ("prompt", "max_length"):
        now, then = getattr(mine, field), getattr(used, field)
        if now != then:
            note = f"models.{field} is {now}, and the rule was fitted with {then}.{read}"
            yield Caution(kind=BLOCKING, note=note)
    if mine.precision != used.precision:
        note = (
            f"The base model runs in {mine.precision}, and the rule was fitted with "
            f"{used.precision}: close to it, not the same.{read}"
        )
        yield Caution(kind="unproven", note=note)


def _same_name(one: str, other: str) -> bool:
    """Whether two names end alike: a mirror of a hub, or a folder, keeps the model's own name."""
    last = [name.rpartition("/")[2].lower() for name in (one, other)]
    return last[0] == last[1]
