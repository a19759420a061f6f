"""``python -m im_assets.shares.export PROFILE FOLDER``: the proposed mixture as files.

What `source_shares` proposes, drawn from the candidates: one file with all of it, one a source, and
what LLaMA-Factory and Axolotl read to train on them (docs/shares.md).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from im_assets.candidates.format_registry import FORMATS, Write
from im_assets.candidates.formats.turns import write_messages, write_sharegpt
from im_assets.candidates.versions import KEY
from im_assets.reporting.folder import replace_folder, write_text
from im_assets.rule.target import Target
from im_assets.scoring.cached import loader
from im_assets.selection.selecting import json_lines
from im_assets.shares.card import Part, card
from im_assets.shares.mixture import Drawn, counts_of, draw
from im_assets.shares.trainers import (
    AXOLOTL,
    DATASET_INFO,
    LLAMA_FACTORY,
    Shape,
    axolotl,
    dataset_info,
    interleaved,
    joined,
)
from im_resources.deployment.making import warehouse_of
from im_resources.plugins import load_plugins
from im_resources.remote.exports import written_at
from im_resources.study import DataSource, ProfileError, Study, load_study
from im_resources.turns import turns_columns
from im_resources.warehouse import Warehouse, WarehouseError

MIXTURE, CARD = "mixture.jsonl", "README.md"
POOL, SHARES = "candidate_datasets", "source_shares"
AGAIN = f"materialize {SHARES} (and {POOL} before it) again"
WRITERS: dict[Shape, Write | None] = {
    "alpaca": None,
    "messages": write_messages,
    "sharegpt": write_sharegpt,
}


class ShareExportError(ValueError):
    """A mixture that cannot be exported; says why, and what to materialize."""


@dataclass(frozen=True)
class Source:
    """The rows of one source, in its own shape, and in the shape of the whole mixture."""

    shape: Shape
    own: dict[str, str]
    common: dict[str, str]


def export_mixture(profile: str, folder: Path, size: int | None = None) -> Path:
    """Write the mixture that is proposed by the profile's study into ``folder`` and return it.

    Args:
        size: examples of the mixture; default: as many as there are candidates.

    Raises:
        ShareExportError: nothing is proposed, or not by the candidates as they are now.
        ProfileError: no such profile.
        WarehouseError: the study's tables cannot be read.
        FileExistsError: the folder holds something else, or is a file.
        OSError: it cannot be written.
    """
    study = load_study(profile)
    load_plugins(study)
    warehouse = warehouse_of(study)
    found = proposal(study, warehouse)
    pool = warehouse.read_table(POOL, KEY).astype(str)
    _same_candidates(found, pool)
    shares = dict(zip(found["source"].astype(str), found["proposed_share"], strict=True))
    counts = counts_of(shares, size or len(pool))
    rows = draw(pool, counts)
    sources = written(rows, study, warehouse)
    files = {source: _file(source) for source in sources}
    shapes = {source: one.shape for source, one in sources.items()}
    parts = [
        Part(source, files.get(source), shapes.get(source), counts.get(source, 0))
        for source in found["source"].astype(str)
    ]
    words = card(found, Target.of(study), study, parts, interleaved(found))

    def write(new: Path) -> None:
        write_text(new / MIXTURE, "".join(sources[r.source].common[r.example_id] for r in rows))
        for source, one in sources.items():
            mine = (one.own[r.example_id] for r in rows if r.source == source)
            write_text(new / files[source], "".join(mine))
        write_text(new / AXOLOTL, axolotl(files, shapes))
        write_text(new / LLAMA_FACTORY, joined(files))
        write_text(new / DATASET_INFO, dataset_info(files, shapes))
        write_text(new / CARD, words)

    always = [MIXTURE, CARD, AXOLOTL, LLAMA_FACTORY, DATASET_INFO]
    every = [*always, *(_file(source) for source in study.data.candidates)]
    # A folder with the sources themselves may hold just these names.
    replace_folder(folder, every, "a mixture", write, always)
    return folder


def proposal(study: Study, warehouse: Warehouse) -> pd.DataFrame:
    """The table of shares, with a proposal.

    Raises ShareExportError when there is none, with the reason.
    """
    if len(study.data.candidates) < 2:
        raise ShareExportError(
            f"study {study.name!r} has {len(study.data.candidates)} candidate sources: there are "
            "no shares to propose"
        )
    if not warehouse.exists() or not warehouse.has_table(SHARES):
        raise ShareExportError(f"study {study.name!r} has no {SHARES} yet: {AGAIN}")
    found = warehouse.read_table(SHARES)
    if unknown := sorted({*found["source"].astype(str)} - {*study.data.candidates}):
        raise ShareExportError(
            f"{', '.join(unknown)} is no source of the profile any more: {AGAIN}"
        )
    if found["proposed_share"].isna().all():
        raise ShareExportError(f"nothing can be exported: {found['note'].iloc[0]}")
    return found


def written(rows: Sequence[Drawn], study: Study, warehouse: Warehouse) -> dict[str, Source]:
    """The lines of the drawn examples by source and example_id.

    Each source is in the shape that it came in. The mixture is in that shape where it is one, and
    else as ``messages``, which every example can be.
    """
    examples = loader(POOL, warehouse)(list(dict.fromkeys(row.example_id for row in rows)))
    groups = {str(name): part for name, part in examples.groupby("source", sort=True)}
    shapes = {name: shape_of(study.data.candidates[name], part) for name, part in groups.items()}
    kinds = set(shapes.values())
    common: Shape = kinds.pop() if len(kinds) == 1 else "messages"
    return {
        name: Source(shape, own, own if shape == common else _lines(groups[name], common))
        for name, shape in shapes.items()
        for own in [_lines(groups[name], shape)]
    }


def shape_of(source: DataSource, examples: pd.DataFrame) -> Shape:
    """The shape of a source's rows, of those that trainers know: of a plugin's own, messages."""
    write = FORMATS.get(source.format, "format").write
    if write is None and not turns_columns(examples):
        return "alpaca"
    return "sharegpt" if write is write_sharegpt else "messages"


def _lines(examples: pd.DataFrame, shape: Shape) -> dict[str, str]:
    ids = examples["example_id"].astype(str)
    return dict(zip(ids, json_lines(examples, WRITERS[shape]), strict=True))


def _same_candidates(found: pd.DataFrame, pool: pd.DataFrame) -> None:
    held = {str(source): int(count) for source, count in pool["source"].value_counts().items()}
    told = zip(found["source"].astype(str), found["examples"].astype(int), strict=True)
    if held != {source: count for source, count in told if count}:
        raise ShareExportError(
            f"the shares were proposed for other candidates than there are now: {AGAIN}"
        )


def _file(source: str) -> str:
    """A source's file, whose name is not that of the whole mixture's."""
    own = f"{source}.jsonl"
    return own if own.casefold() != MIXTURE else f"{source}.source.jsonl"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when nothing can be exported."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.shares.export", description=__doc__)
    parser.add_argument("profile", help="name of a profile, or path of its file")
    parser.add_argument(
        "folder", help="folder to write, or its URL (docs/files.md); an earlier one is replaced"
    )
    parser.add_argument("--examples", type=int, metavar="N", help="examples of the mixture; "
                        "default: as many as there are candidates")  # fmt: skip
    chosen = parser.parse_args(arguments)
    if chosen.examples is not None and chosen.examples < 1:
        parser.error(f"--examples {chosen.examples}: a mixture has at least 1 example")

    def write(folder: Path) -> Path:
        return export_mixture(chosen.profile, folder, chosen.examples)

    try:
        print(written_at(chosen.folder, "a mixture", write))
    except (ShareExportError, ProfileError, WarehouseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
