"""The card of an exported mixture: what is proposed, how sure that is, and how to train on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from im_assets.common.formatting import MISSING, shown
from im_assets.rule.target import Target
from im_assets.shares.telling import proposal_words, sentence
from im_assets.shares.trainers import AXOLOTL, LLAMA_FACTORY, Shape
from im_resources.study import Study


@dataclass(frozen=True)
class Part:
    """What a mixture holds of one source: its file, None where no row of it is in the mixture."""

    source: str
    file: str | None
    shape: Shape | None
    rows: int


def card(
    found: pd.DataFrame,
    target: Target,
    study: Study,
    parts: Sequence[Part],
    snippet: str | None,
) -> str:
    """Markdown, whose first line says whether the proposal can be told from the data as it is.

    Args:
        found: as `telling.shares_table` gives it, with a proposal.
        parts: one a source, in the table's order.
        snippet: the proposal as LLaMA-Factory draws it from the sources as they came.
    """
    total, by = sum(part.rows for part in parts), study.rule.confidence
    shapes = {part.shape for part in parts if part.shape is not None}
    shape = "the shape of the sources" if len(shapes) == 1 else "one shape (`messages`)"
    paragraphs = [
        f"# {proposal_words(found, target)}",
        f"{total:,} examples of the candidates of the study `{study.name}`, in the shares that it "
        f"proposes. {sentence(found, target)}",
        f"The gain is a prediction: {target.label} of the proposed mixture less that of the data "
        f"as it is, with an interval of {100 * by:g} % that holds together with those of all "
        f"sources (Scheffé). It is about finetunes {_finetunes(study)}.",
        "## Shares",
        _table(found, parts),
        "An example is in the mixture as often as its source is repeated, and none more than once "
        "more often than another of its source. Which, is by hash: the same data give the same "
        "files.",
        "## Files",
        f"- `mixture.jsonl`: all rows, mixed, in {shape}.\n"
        "- a file a source: the same rows, in the shape that the source came in.\n"
        f"- `{AXOLOTL}`: `datasets:` for Axolotl, to add to a config. It has no probabilities: the "
        "mixture is what the files hold. Leave `dataset_exact_deduplication` off, or repeated "
        "examples are lost.\n"
        f"- `{LLAMA_FACTORY}`, `dataset_info.json`: the same for LLaMA-Factory. The files **here** "
        "are joined (`mix_strategy: concat`), which is the mixture itself, each row once.\n\n"
        "Paths are relative: run a trainer in this folder, or put its path before them.",
    ]
    if snippet is not None:
        paragraphs.append(
            "To draw from the source files **as they came** instead, describe them in your own "
            f"`dataset_info.json` and let LLaMA-Factory interleave them:\n\n```yaml\n{snippet}```"
        )
    paragraphs.append(
        "Each row tells its source, file, line and own id. The licences of the sources hold for "
        "the rows, and are not known here."
    )
    return "\n\n".join(paragraphs) + "\n"


def _finetunes(study: Study) -> str:
    """What the prediction is about: of runs made elsewhere, size and base are not the profile's."""
    if study.runs is not None:
        return "such as the runs that were measured"
    return f"of {study.mixtures.size:,} examples over this study's base"


def _table(found: pd.DataFrame, parts: Sequence[Part]) -> str:
    heads = ["source", "candidates", "own share", "proposed share", "rows here", "times an example"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row, part in zip(found.to_dict("records"), parts, strict=True):
        held = int(row["examples"])
        least, rest = divmod(part.rows, held) if held else (0, 0)
        times = f"{least} or {least + 1}" if rest else str(least)
        lines.append(
            [
                f"{part.source} (`{part.file}`)" if part.file else part.source,
                shown(held, "int"),
                shown(row["own_share"], "percent"),
                shown(row["proposed_share"], "percent"),
                shown(part.rows, "int"),
                times if held else MISSING,
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
