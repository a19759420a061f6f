"""The question, and the answer in plain sentences made from the numbers."""

import pandas as pd

from im_assets.common.formatting import between, shown
from im_assets.reporting.blocks import Fact, Facts, Section, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections import cuts
from im_assets.reporting.sections.validation import verdict_sentence
from im_assets.rule.chance import told
from im_assets.rule.model import Rule
from im_assets.rule.transform import restored
from im_assets.selection.composition import concentration

KEY, TITLE = "answer", "The question, and the answer"
# Sets so small say how the platform works, and nothing about data (the paper's hold 2000).
FEW_EXAMPLES = 50
ELSEWHERE = (
    "The finetunes are your own ({path}): with which base, settings and evaluation they were made "
    "is not known here, and is taken to be the same for all."
)
QUESTION = "Which instruction data is worth finetuning on?"


def section(found: Gathered) -> Section:
    """What the study says, how far it was checked, and at what scale."""
    sentences = [rule_sentence(found), *selection_sentences(found)]
    first = " ".join([QUESTION, sentences[0], *collapse_sentences(found), *cuts.sentences(found)])
    blocks = [Text(first, "answer")]
    blocks += [Text(sentence, "answer") for sentence in sentences[1:]]
    if found.study.label:
        scale = f"Scale: {found.study.label}. A result holds for this model, data and size."
        if _size(found) < FEW_EXAMPLES:
            scale = (
                f"Scale: {found.study.label}. This shows how the platform works; nothing here says "
                "what is true of data in general."
            )
        blocks.append(Text(scale, "note"))
    if found.study.runs is not None:
        blocks.append(Text(ELSEWHERE.format(path=found.study.runs.path), "note"))
    return Section(KEY, TITLE, (*blocks, *_numbers(found)))


def _size(found: Gathered) -> int:
    """Examples of the largest mixture: of own runs as they are, else as the profile says."""
    if found.study.runs is None or found.mixtures is None:
        return found.study.mixtures.size
    return int(found.mixtures["n_examples"].max())


def rule_sentence(found: Gathered) -> str:
    """What the rule prefers, and how well it ranks mixtures that it has not seen."""
    rule = found.rule
    if rule is None:
        return "No rule has been fitted yet."
    sets = _sets(found)
    basis = "The study" if rule.n is None else f"From {rule.n} finetuned {sets}, the study"
    if found.rule_of_other_points:
        basis = f"As they were before the last change, {basis[0].lower()}{basis[1:]}"
    if not rule.indicators:
        return f"{basis} found no indicator that tells better data from worse."
    target = rule.predicts
    if rule.beyond_chance is False:
        return f"{basis} found no rule beyond chance: {against_chance(rule)}."
    prefers = preference(rule)
    if rule.source != "fitted":
        return f"The study uses a published rule, which prefers data with {prefers}."
    rank = rule.loo_spearman
    if rank is None:
        tail = f"how well it ranks {sets} that it has not seen is not defined"
    else:
        ends = left_out_interval(rule)
        tail = f"it ranks {sets} that it has not seen {how_well(rank, ends)}"
    better = f"{target.direction} {target.measure_label}"
    untested = rule.beyond_chance is None
    doubt = "; whether chance alone gives such a rule was not tested" if untested else ""
    return f"{basis} finds {better} with {prefers}; {tail}{doubt}."


def against_chance(rule: Rule) -> str:
    """What shuffled losses come to beside a rule that was tested against them."""
    assert rule.chance is not None
    return told(rule.chance, rule.n, rule.predicts.plural)


def preference(rule: Rule) -> str:
    """What a rule with indicators prefers: ``higher reward and lower ppl``."""
    sign = rule.predicts.sign
    wants: dict[str, list[str]] = {"more": [], "less": [], "near": []}
    for term in rule.coefficients:
        wants["more" if sign * term.estimate < 0 else "less"].append(term.name)
    for curve in rule.curves:
        best, side = curve.best(sign)
        value = restored(best, rule.transform)
        wants[side].append(f"{curve.name} near {shown(value)}" if side == "near" else curve.name)
    more, less, near = wants.values()
    parts = [
        f"higher {_listed(more)}" if more else "",
        f"lower {_listed(less)}" if less else "",
        _listed(near) if near else "",
    ]
    return " and ".join(filter(None, parts))


def chance_p(rule: Rule) -> float | None:
    """The p of the permutation test that decides whether the rule is beyond chance."""
    return None if rule.chance is None else rule.chance.loo_r2.p


def left_out_interval(rule: Rule) -> str:
    """The interval of the rank correlation on mixtures left out, ``(0.31 to 0.84)``; '' where it
    has none."""
    if rule.loo_spearman_low is None or rule.loo_spearman_high is None:
        return ""
    return f"({between(rule.loo_spearman_low, rule.loo_spearman_high, 'two')})"


def how_well(rank: float, interval: str = "") -> str:
    """A rank correlation on unseen sets in words, with its number and its interval in brackets."""
    how = (
        "well" if rank >= 0.7 else "fairly" if rank >= 0.4
        else "weakly" if rank > 0.15 else "no better than chance"
    )  # fmt: skip
    ends = f", {interval.strip('()')}" if interval else ""
    return f"{how} (Spearman {shown(rank, 'two')}{ends})"


def selected_arms(found: Gathered) -> pd.DataFrame:
    """The verdicts on what the study selects by; at its own size where that was measured."""
    frame, settings = found.get("selection_validation"), found.study.validation
    if frame is None or settings is None:
        return pd.DataFrame()
    mine = found.study.selection
    same = [
        name
        for name, arm in settings.strategies.items()
        if (arm.strategy, arm.options) == (mine.strategy, mine.options) and arm.strategy != "random"
    ]
    arms = frame[frame["strategy"].isin(same) & (frame["against"] == "random")]
    at_size = arms[arms["size"] == mine.size]
    return at_size if len(at_size) else arms


def selection_sentences(found: Gathered) -> list[str]:
    """Whether what the rule selects was better than random, or that nobody looked."""
    arms = selected_arms(found)
    if found.refused and (arms.empty or found.of_earlier_rule(arms)):
        return [f"{found.refused}."]
    if found.of_earlier_rule(arms):
        return [
            "What it selects was not checked by finetuning: the verdicts below belong to an "
            "earlier rule."
        ]
    if arms.empty:
        return [
            "What it selects was not checked by finetuning, so nothing shows that it is better "
            "than a random choice."
        ]
    largest = arms[arms["size"] == arms["size"].max()]
    refused = [f"{found.refused}. The validation measured what it would select."]
    on = ", on instructions that no rule was fitted on" if _held_out(arms) else ""
    return [
        *(refused if found.refused else []),
        *(
            f"Checked by finetuning{on}. {verdict_sentence(row, found.target)}"
            for _, row in largest.iterrows()
        ),
    ]


def _held_out(arms: pd.DataFrame) -> bool:
    return "part" in arms and set(arms["part"]) == {"held_out"}


def collapse_sentences(found: Gathered) -> list[str]:
    """For each pool whose selection is of one kind of example, that it is, with the shares."""
    sentences: list[str] = []
    if found.refused:
        return sentences
    for name, pool in found.pools.items():
        if said := concentration(list(pool.compositions)):
            of = f" of {name}" if len(found.pools) > 1 else ""
            sentences.append(f"Mind what it selects{of}, which is much of one kind: {said}.")
    return sentences


def _numbers(found: Gathered) -> tuple[Facts, ...]:
    rule, arms = found.rule, selected_arms(found)
    if found.of_earlier_rule(arms):
        arms = arms[:0]
    facts = []
    if rule is not None and rule.source == "fitted":
        facts += [
            Fact("mixtures", f"{_sets(found)} finetuned", rule.n, "int"),
            Fact(
                "loo_spearman",
                "Spearman on mixtures left out",
                rule.loo_spearman,
                "two",
                left_out_interval(rule),
            ),
            Fact("r2", "R² of the rule", rule.r2, "two"),
            Fact("chance_p", f"p against shuffled {found.target.plural}", chance_p(rule), "p"),
        ]
    if len(arms):
        row = arms[arms["size"] == arms["size"].max()].iloc[0]
        facts += [
            Fact(
                "difference",
                f"{found.target.measure_label} against random",
                row["difference"],
                "signed",
                found.unit,
            ),
            Fact("detectable", "could have been seen", row["detectable"], "loss", found.unit),
            Fact("verdict", "verdict", row["verdict"], "text"),
        ]
    return (Facts(tuple(facts)),) if facts else ()


def _sets(found: Gathered) -> str:
    """What the rule's points are called: mixtures, unless other experiments' are among them."""
    return "mixtures" if found.study.rule.points == ("mixtures",) else "sets"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
