"""A study that only applies a ready rule: what it says, of what, and what speaks against it."""

from collections.abc import Iterable

from im_assets.common.formatting import shown
from im_assets.reporting.blocks import Block, Column, Facts, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections import cuts
from im_assets.reporting.sections import data as data_section
from im_assets.reporting.sections import rule as rule_section
from im_assets.reporting.sections.absent import not_made
from im_assets.reporting.sections.answer import (
    KEY,
    QUESTION,
    TITLE,
    against_chance,
    how_well,
    left_out_interval,
    preference,
)
from im_assets.rule.model import Rule
from im_assets.rule.provenance import BLOCKING, KINDS, model_name, role_of
from im_assets.scoring.registry import set_level
from im_resources.study import Study


def answer(found: Gathered) -> Section:
    """What the rule prefers, and in the same paragraph why that is not yet known of this data."""
    rule, study = found.rule, found.study
    if rule is None:
        return Section(KEY, TITLE, (Text(f"{QUESTION} No rule has been applied yet.", "answer"),))
    sentences = [
        QUESTION,
        f"{_origin(rule, study)} is not beyond chance: {against_chance(rule)}."
        if rule.beyond_chance is False
        else f"{_origin(rule, study)} prefers data with {preference(rule)}.",
        *([f"{found.refused}."] if found.refused else []),
        "Nothing was finetuned here, so nothing shows that what it selects is better than a random "
        "choice.",
        *caveats(found, rule),
        *cuts.sentences(found),
    ]
    blocks = [Text(" ".join(sentences), "answer")]
    if study.label:
        blocks.append(Text(f"Scale: {study.label}.", "note"))
    return Section(KEY, TITLE, tuple(blocks))


def caveats(found: Gathered, rule: Rule) -> list[str]:
    """Sentences: what is not as it was when the rule was fitted, and what that means."""
    notes = [warning for warning in rule.warnings if warning.kind in KINDS]
    said = [warning.note for warning in notes]
    said += _small_pools(found, rule)
    if any(warning.kind == BLOCKING for warning in notes):
        head = "It reads other numbers here than those it was fitted on, and so selects nothing:"
    elif said:
        head = "That its ranking holds here is unproven:"
    elif rule.source != "fitted":
        return ["Its indicators are computed with the paper's models, as far as their names tell."]
    else:
        return []
    return [head, *said]


def data(found: Gathered) -> Section:
    """The pools, and what was left out of them."""
    facts = data_section.unseen(found)
    if not facts:
        names = (f"{name}_dataset" for name in found.study.pools)
        return not_made(data_section.KEY, data_section.TITLE, *names)
    leaks = (
        "No evaluation set is given, so nothing was left out of the pool for being in one."
        if found.study.data.evaluation is None
        else "What would leak the evaluation set was left out of the pool."
    )
    blocks = [
        Facts(tuple(facts)),
        Text(leaks),
        *data_section.limited(found),
        *cuts.blocks(found),
        data_section.quarantine(found),
    ]
    return Section(data_section.KEY, data_section.TITLE, tuple(blocks))


def rule(found: Gathered) -> Section:
    """The rule, how its indicators were computed then and are now, and its warnings."""
    rule = found.rule
    if rule is None:
        return not_made(rule_section.KEY, rule_section.TITLE, "quality_rule")
    target = rule.predicts
    blocks: list[Block] = [
        Text(rule.formula.replace("-", "\u2212"), "answer"),
        Text(
            f"Source: {rule.reference}{f', study {rule.fitted_by}' if rule.fitted_by else ''}. "
            f"{target.direction.capitalize()} predicted {target.label} means better data."
            f"{rule_section.reading(rule)}"
        ),
        Facts(rule_section.facts_of(rule)),
        rule_section.coefficients(rule),
        _then_and_now(rule, found.study),
    ]
    sets = [i.name for i in set_level(found.study.scoring) if i.name in rule.indicators]
    if sets and rule.set_size:
        blocks.append(
            Text(
                f"{', '.join(sets)} of an example is what it would have in a random set of "
                f"{rule.set_size:,} examples of its own pool (all of a smaller pool), as many as "
                "in the mixtures that the rule was fitted on. Nothing of those mixtures is needed."
            )
        )
    notes = (*(warning.note for warning in rule.warnings), *_small_pools(found, rule))
    blocks += [Text(note, "warning") for note in notes]
    return Section(rule_section.KEY, rule_section.TITLE, tuple(blocks))


def _origin(rule: Rule, study: Study) -> str:
    if rule.source != "fitted":
        return f"The paper's rule ({rule.reference}), applied as it is,"
    by = f" by the study {rule.fitted_by}" if rule.fitted_by else ""
    size = f" of {rule.set_size:,} examples" if rule.set_size else ""
    rank = rule.loo_spearman
    how = (
        f", whose unseen mixtures it ranked {how_well(rank, left_out_interval(rule))},"
        if rank is not None
        else ""
    )
    return f"The rule fitted{by} on {rule.n} mixtures{size}{how}"


def _small_pools(found: Gathered, rule: Rule) -> list[str]:
    return [note for name in found.pools if (note := _small(found, rule, name))]


def _small(found: Gathered, rule: Rule, pool: str) -> str:
    """Why set-level indicators of a pool are on another scale than the rule's; '' where not."""
    examples = found.pools[pool].examples
    sets = [i.name for i in set_level(found.study.scoring) if i.name in rule.indicators]
    if not sets or examples is None or rule.set_size is None or examples >= rule.set_size:
        return ""
    return (
        f"{', '.join(sets)} was fitted within sets of {shown(rule.set_size, 'int')} examples, "
        f"and the pool {pool} has only {shown(examples, 'int')}: its values are of sets as large "
        "as the pool, and so higher than those that the rule knows."
    )


def _then_and_now(rule: Rule, study: Study) -> Table:
    used = {one.name: one for one in rule.indicators_used}
    models = {str(model.role): model.name for model in rule.models_used}
    rows = []
    for name in rule.indicators:
        one, now = used.get(name), study.scoring.indicators[name].backend
        roles = list(map(role_of, one.uses)) if one else []
        names = [n for role in roles if (n := model_name(study, role))]
        then = _listed(one.backend if one else "not recorded", [models.get(r, "") for r in roles])
        rows.append({"indicator": name, "then": then, "now": _listed(now, names)})
    columns = (
        Column("indicator", "Indicator", "text"),
        Column("then", "When the rule was fitted", "text"),
        Column("now", "Here", "text"),
    )
    return Table("computed_with", "What its indicators are computed with", columns, tuple(rows))


def _listed(backend: str, models: Iterable[str]) -> str:
    named_ = ", ".join(filter(None, models))
    return f"{backend} ({named_})" if named_ else backend
