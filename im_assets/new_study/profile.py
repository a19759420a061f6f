"""The text of a proposed profile: short, since it extends another, each assumption in words."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from im_assets.candidates.format_registry import ID
from im_assets.new_study.looking import LANGUAGES, Look
from im_assets.new_study.sources import Source
from im_resources.study import Study
from im_resources.study.environment import in_a_new_shell

STAND_IN = "sample_data/evaluation.jsonl"
_WIDTH = 100
_TOKEN = 4  # characters, roughly; of Chinese, Japanese and Korean less than two
_FAULTS = 3  # kinds that are told


def profile_text(
    name: str,
    profile: str,
    base: str,
    study: Study,
    candidates: Sequence[Source],
    pools: Sequence[Source],
    evaluation: Source | None,
) -> str:
    """The YAML of the profile.

    Args:
        name: of the study; ``profile``: what IM_PROFILE has to be for it.
        base: the profile that it extends, which is ``study``.
        candidates: none, where a ready rule is applied.
        pools: none: the candidates are the pools.
        evaluation: None: the demo's stands in for it.
    """
    lines = [
        *_comment(
            f"The study {name!r}, proposed by `make new-study` after a look at its files. What it "
            "assumed is said in comments: change what is wrong. The first rows of each file were "
            f"looked at, for their language up to {LANGUAGES}. Every setting: docs/settings.md."
        ),
        *_comment(f"What it would cost: {in_a_new_shell('make run ARGS=--plan', profile)}"),
        *_comment(f"Run it:             {in_a_new_shell('make run', profile)}"),
        f"name: {name}",
        *_comment(_sizes(base, study)),
        f"extends: {base}",
        f"label: {_yaml(f'{name}, sizes of {base}')}",
        "",
        "data:",
    ]
    if candidates:
        lines += ["  candidates:", *_block(candidates, 4)]
    lines += _pools(candidates, pools)
    lines += _evaluation(candidates or pools, evaluation, bool(candidates))
    rows = [sum(look.usable for look in pool.looks) for pool in pools or candidates]
    size = max(1, min(study.selection.size, min(rows) // 4))
    fewest = f"{min(rows)} usable rows were seen in the smallest pool"
    lines += ["", *_comment(f"How many are selected of each pool ({fewest})."),
              f"selection: {{size: {size}}}"]  # fmt: skip
    lines += ["", *_comment(_lengths([*candidates, *pools], study)),
              f"# models: {{max_length: {2 * study.models.max_length}}}"]  # fmt: skip
    if candidates:
        lines += [
            *_comment("More finetunes, and larger mixtures, for a result to rely on:"),
            "# mixtures: {seeds: 32, size: 64}",
        ]
    return "\n".join(lines) + "\n"


def described(source: Source) -> list[str]:
    """What was seen of a source and is assumed of it, a sentence or two each."""
    looks = source.looks
    first, rows = looks[0], sum(look.rows for look in looks)
    usable = sum(look.usable for look in looks)
    said = []
    if source.files > 1:
        seen = f", {len(looks)} of them looked at" if source.files > len(looks) else ""
        said.append(f"{source.files} files{seen}.")
    whole = all(look.whole for look in looks) and source.files == len(looks)
    where = "all there are" if whole else "the first"
    said.append(
        f"{rows} rows looked at ({where}), {usable} usable as `{first.settings['format']}`."
    )
    if first.separated_by:
        said.append(f"Fields are separated by {first.separated_by}.")
    if first.guessed:
        fields = first.settings["fields"].items()
        mapped = [f"{field} = {column!r}" for field, column in fields if field != "id"]
        said.append(f"Assumed by the names of the columns: {', '.join(mapped)}.")
        used = {*first.settings["fields"].values(), first.settings.get("outputs"), ID}
        if others := [column for column in first.columns if column not in used]:
            said.append(f"Not read: {', '.join(map(repr, others[:20]))}.")
    if own := first.settings.get("fields", {}).get("id"):
        said.append(f"Assumed: the rows' own ids are in {own!r}.")
    elif ID in first.columns and ID not in dict(first.settings.get("fields", {})).values():
        said.append(f"The rows' own ids are in {ID!r}.")
    if outputs := first.settings.get("outputs"):
        said.append(f"Reference outputs: the list in {outputs!r}.")
    faults = sum((Counter(look.faults) for look in looks), Counter[str]())
    if faults:
        kinds = [f"{reason} ({count})" for reason, count in faults.most_common(_FAULTS)]
        more = f" and {len(faults) - _FAULTS} other reasons" if len(faults) > _FAULTS else ""
        said.append(f"Into quarantine: {'; '.join(kinds)}{more}.")
    languages = languages_of(source)
    if languages:
        told = ", ".join(f"{code} {count}" for code, count in languages.most_common(6))
        said.append(f"By language: {told}.")
    said.append(f"Half of the rows have over {_median(looks)} characters.")
    return said


def languages_of(source: Source) -> Counter[str]:
    """Rows looked at, by language."""
    return sum((Counter(look.languages) for look in source.looks), Counter[str]())


def warnings(
    candidates: Sequence[Source], pools: Sequence[Source], evaluation: Source | None
) -> Iterator[str]:
    """What is likely to give a wrong picture, in a sentence each."""
    if candidates and evaluation is None:
        yield (
            "no evaluation set was given (EVAL=…): the demo's 48 English instructions stand in, "
            "and the rule says what is good for these"
        )
    measured = Counter({"en": 1}) if evaluation is None else languages_of(evaluation)
    own = sum(map(languages_of, [*candidates, *pools]), Counter[str]())
    foreign = [
        f"{code} ({count / own.total():.0%})"
        for code, count in own.most_common()
        if code not in ("und", "zxx") and count > 0.1 * own.total() and not measured[code]
    ]
    if foreign and (candidates or evaluation is not None):
        yield (
            f"the data is in {', '.join(foreign)} too, of which the evaluation set has nothing: "
            "what is good for these is not measured"
        )
    for source in (*candidates, *pools, *([evaluation] if evaluation else ())):
        rows, usable = (sum(getattr(x, key) for x in source.looks) for key in ("rows", "usable"))
        if usable < 0.9 * rows:
            yield f"{source.name}: only {usable} of {rows} rows can be used, see above why"


def _pools(candidates: Sequence[Source], pools: Sequence[Source]) -> Iterator[str]:
    if pools:
        yield "  unseen:"
        yield from _block(pools, 4)
        return
    yield from _comment(
        "Assumed, since no POOL was given: the candidates themselves are selected from. A pool of "
        "its own, of which nothing is finetuned on before the rule stands, is the stronger test.",
        2,
    )
    yield "  unseen:"
    for source in candidates:
        yield from _entry(f"{source.name.replace('-', '_')}_pool", source, 4)


def _evaluation(
    sources: Sequence[Source], evaluation: Source | None, needed: bool
) -> Iterator[str]:
    if evaluation is not None:
        yield from _comment(" ".join(described(evaluation)), 2)
        yield from _entry("evaluation", evaluation, 2)
        return
    if not needed:
        yield from _comment(
            "No evaluation set was given. One (EVAL=…) keeps what leaks it out of the selection.", 2
        )
        yield "  evaluation: null"
        return
    yield from _comment(
        "ASSUMED, since no EVAL was given: the demo's 48 English instructions. The rule will say "
        "what is good for these. Yours should be like what the model is to answer: some fifty "
        "instructions with one or more good outputs each, which are not among the candidates.",
        2,
    )
    yield f"  evaluation: {{path: {STAND_IN}, outputs: outputs}}"


def _block(sources: Sequence[Source], indent: int) -> Iterator[str]:
    for source in sources:
        yield from _comment(" ".join(described(source)), indent)
        yield from _entry(source.name, source, indent)
        if any(not look.whole for look in source.looks):
            yield f"{' ' * indent}  # limit: 2000   # for a first try: a seeded sample of the rows"


def _entry(name: str, source: Source, indent: int) -> Iterator[str]:
    margin = " " * indent
    path: Any = source.paths[0] if len(source.paths) == 1 else list(source.paths)
    yield f"{margin}{name}:"
    settings: Mapping[str, Any] = {"path": path, **source.looks[0].settings}
    for key, value in settings.items():
        yield f"{margin}  {key}: {_yaml(value)}"


def _sizes(base: str, study: Study) -> str:
    if study.fits_nothing:
        return f"Models and indicators of profiles/{base}.yaml; nothing is finetuned."
    return (
        f"Models and sizes of profiles/{base}.yaml: {len(study.mixtures.seed_numbers)} mixtures of "
        f"{study.mixtures.size} examples, {study.models.max_length} tokens of each. What is not "
        "said here is as it is there."
    )


def _lengths(sources: Sequence[Source], study: Study) -> str:
    longest = max(_median(source.looks) for source in sources)
    return (
        f"Cut to {study.models.max_length} tokens of prompt and response together, some "
        f"{_TOKEN * study.models.max_length} characters of English. Half of the rows of one source "
        f"have over {longest}. More costs time in proportion:"
    )


def _median(looks: Sequence[Look]) -> int:
    return max(look.length for look in looks)


def _comment(text: str, indent: int = 0) -> list[str]:
    start = " " * indent + "# "
    printable = "".join(c if c.isprintable() else " " for c in text)
    return textwrap.wrap(
        printable, _WIDTH, initial_indent=start, subsequent_indent=start,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000
    )
    return text.removesuffix("\n").removesuffix("\n...")
