"""The value of shares as a table and in words."""

from collections.abc import Mapping, Sequence

import pandas as pd

from im_assets.common.formatting import between, plain, shown
from im_assets.rule.target import Target
from im_assets.shares.surface import STEP, SurfaceError, fit_surface, propose
from im_resources.study import ProposalSettings

COLUMNS = {
    "source": ("text", "Candidate source"),
    "examples": ("bigint", "Examples that it holds"),
    "own_share": ("double", "Its share of all candidates"),
    "mean_share": ("double", "Its mean share of the measured mixtures; null: in none of them"),
    "effect": ("double", "Change of the target by a tenth more of it, taken from the others"),
    "effect_low": ("double", "Lower end of its interval; all rows' hold together"),
    "effect_high": ("double", "Upper end"),
    "verdict": ("text", "better, worse or not_distinguishable; null: cannot be told"),
    "proposed_share": ("double", "Its share of the mixture that is proposed"),
    "repeated": ("double", "How often each of its examples is in as many examples as there are"),
    "capped": ("boolean", "Its share is as high as its examples may be repeated"),
    "gain": ("double", "Target of the proposed mixture less that of the data as it is"),
    "gain_low": ("double", "Lower end of its interval, the same in all rows"),
    "gain_high": ("double", "Upper end"),
    "mixtures": ("bigint", "Mixtures measured"),
    "r2_left_out": ("double", "R² of the shares alone, on mixtures left out"),
    "curved": ("boolean", "Whether a curved surface predicts better; null: too few mixtures"),
    "note": ("text", "Why something cannot be told; empty where it can"),
}
NUMBERS = [name for name, (kind, _) in COLUMNS.items() if kind == "double"]


def measured_shares(
    samples: pd.DataFrame, partitions: Sequence[str], column: str = "seed"
) -> pd.DataFrame:
    """The share of each source (columns) of the examples of each mixture (rows, ``partitions``).

    Args:
        samples: mixed_samples, or finished_runs: source, and the mixture in ``column``.
    """
    mine = samples[samples[column].astype(str).isin(partitions)]
    counts = pd.crosstab(mine[column].astype(str), mine["source"].astype(str))
    return counts.div(counts.sum(axis=1), axis=0).reindex(pd.Index(partitions))


def shares_table(
    shares: pd.DataFrame,
    target_values: pd.Series,
    held: Mapping[str, int] | None,
    settings: ProposalSettings,
    confidence: float,
    target: Target,
) -> pd.DataFrame:
    """One row a source, columns as in COLUMNS.

    Args:
        shares: of each measured mixture, as `measured_shares` gives them.
        target_values: the target of each, by the same index.
        held: examples of each source; None: not known, so that nothing is proposed.
    """
    sources = sorted({*map(str, shares.columns), *(held or ())})
    examples = pd.Series(held or {}, dtype="float64").reindex(sources, fill_value=0)
    if held is None:
        examples[:] = float("nan")
    rows = pd.DataFrame(
        {
            "source": sources,
            "examples": examples.to_numpy(),
            "own_share": (examples / examples.sum()).to_numpy(),
            "mean_share": shares.mean().reindex(sources).to_numpy(),
        }
    )
    rows = rows.reindex(columns=list(COLUMNS)).assign(mixtures=len(shares), note="")
    rows = rows.set_index("source")
    try:
        surface = fit_surface(shares, target_values, confidence)
    except SurfaceError as error:
        return _typed(rows.assign(note=str(error)))
    rows[["r2_left_out", "curved"]] = surface.r2_left_out, surface.curved
    told: dict[str, tuple[float, float, float, str]] = {}
    for source in surface.sources:
        effect = surface.effect(source)
        better = (effect.value < 0) == (target.sign > 0)
        verdict = ("better" if better else "worse") if effect.distinct else "not_distinguishable"
        told[source] = (effect.value, effect.low, effect.high, verdict)
    columns = ["effect", "effect_low", "effect_high", "verdict"]
    rows[columns] = pd.DataFrame.from_dict(told, orient="index", columns=columns)
    if held is None:
        note = "nothing is proposed: how many examples each source has is not known"
        return _typed(rows.assign(note=note))
    unmeasured = sorted(set(held) - set(surface.sources))
    if unmeasured:
        names = ", ".join(unmeasured)
        return _typed(rows.assign(note=f"nothing is proposed: {names} is in no measured mixture"))
    try:
        proposal = propose(surface, held, settings.nearness, settings.repeats, target.sign)
    except SurfaceError as error:
        return _typed(rows.assign(note=f"nothing is proposed: {error}"))
    rows["proposed_share"] = pd.Series(dict(proposal.shares))
    rows["repeated"] = rows["proposed_share"] / rows["own_share"]
    rows["capped"] = rows.index.isin(proposal.capped)
    gain = proposal.gain
    rows[["gain", "gain_low", "gain_high"]] = gain.value, gain.low, gain.high
    return _typed(rows)


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    frame = rows.reset_index()[list(COLUMNS)]
    kinds = dict.fromkeys(NUMBERS, "float64")
    kinds |= {"examples": "Int64", "mixtures": "int64", "capped": "boolean", "curved": "boolean"}
    return frame.astype(kinds | dict.fromkeys(("source", "verdict", "note"), "string"))


def sentence(found: pd.DataFrame, target: Target) -> str:
    """What the table says, in sentences.

    Args:
        found: as `shares_table` gives it.
    """
    first = found.iloc[0]
    if found["effect"].isna().all():
        return f"What a share of each source is worth cannot be told: {first['note']}."
    parts = []
    for verdict in ("better", "worse"):
        names = found.loc[(found["verdict"] == verdict).fillna(False), "source"]
        if len(names):
            parts.append(f"{verdict} with more of {', '.join(names)}")
    told = (
        f"By {first['mixtures']} mixtures, the {target.label} is {' and '.join(parts)}."
        if parts
        else f"By {first['mixtures']} mixtures, no source is distinguishable from the others."
    )
    if found["gain"].isna().all():
        return f"{told} {str(first['note']).capitalize()}."
    curved = " A curve predicts better than this line." if plain(first["curved"]) is True else ""
    return f"{told} {proposal_words(found, target)}.{curved}"


def proposal_words(found: pd.DataFrame, target: Target) -> str:
    """Whether the proposed shares can be told from the data as it is, and what they change.

    Args:
        found: as `shares_table` gives it, with a proposal.
    """
    first = found.iloc[0]
    change = shown(first["gain"], "signed")
    sure = (
        "The proposed shares are a step that can be told from none"
        if first["gain_low"] > 0 or first["gain_high"] < 0
        else "The proposed shares cannot be told from the data as it is"
    )
    ends = between(first["gain_low"], first["gain_high"], "signed")
    return f"{sure}: {change} in {target.label} ({ends})"


def step_words() -> str:
    """The step that an effect is told for, in words."""
    return f"{STEP:.0%} more of it, taken from the others in proportion"
