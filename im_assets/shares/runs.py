"""``python -m im_assets.shares.runs runs.csv``: your own finetunes, and what a share is worth.

A CSV with one row a finished finetune: a column a source, with its share or its number of examples,
and a column with what was measured. No profile, no model, no finetune. What comes out is what
`source_shares` says of a study's mixtures (docs/shares.md).
"""

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from im_assets.experiments.measures import Direction, Scale
from im_assets.reporting.folder import replace_folder, write_text
from im_assets.rule.target import Target
from im_assets.shares.telling import sentence, shares_table
from im_assets.shares.trainers import LLAMA_FACTORY, interleaved
from im_resources.remote import RemoteError
from im_resources.remote.exports import written_at
from im_resources.study import ProposalSettings, did_you_mean

SHOWN = [
    "source", "examples", "own_share", "effect", "effect_low", "effect_high", "verdict",
    "proposed_share", "repeated",
]  # fmt: skip
ALIKE = 1.1  # sums of shares, or of as many examples, differ by no more than rounding and a bit
TABLE = "shares.csv"


class RunsError(ValueError):
    """A file of runs that cannot be used; says where, what is there, and what would be right."""


def read_runs(path: Path, measure: str, sources: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """The shares of each run (rows sum to one), and what was measured, by the line of the file.

    Args:
        measure: the column with what was measured.
        sources: the columns of the sources; none: all others that hold numbers in every row, if
            these sum to about the same in each.

    Raises RunsError for a file or column that is not there, for columns that do not look like
    shares, and for every row with a value that is no number, negative, or of no share at all.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            rows = {}
            for row in reader:
                rows[reader.line_num] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunsError(f"{path} cannot be read as CSV: {error}") from error
    for name in (measure, *sources):
        if name not in columns:
            raise RunsError(
                f"{path}: no column {name!r}{did_you_mean(name, columns)}; it has: "
                f"{', '.join(columns) or 'none'}"
            )
    names = list(sources) or [
        column
        for column in columns
        if column != measure and all(_number(row[column]) is not None for row in rows.values())
    ]
    if len(names) < 2:
        raise RunsError(
            f"{path}: {len(names)} columns hold a number in every row beside {measure!r}, and at "
            "least two sources are needed; name them: --sources a b"
        )
    faults, sums, shares, values = [], {}, {}, {}
    for line, row in rows.items():
        numbers = {name: _number(row[name]) for name in (*names, measure)}
        wrong = [name for name, number in numbers.items() if number is None]
        parts = [numbers[name] or 0.0 for name in names]
        if None in row:
            faults.append(f"line {line}: more fields than the {len(columns)} columns")
        elif wrong:
            faults.append(f"line {line}: {wrong[0]} is {row[wrong[0]]!r}, no number")
        elif min(parts) < 0 or sum(parts) <= 0:
            faults.append(f"line {line}: shares {parts} are negative, or of nothing")
        else:
            sums[line] = sum(parts)
            shares[line] = [part / sums[line] for part in parts]
            values[line] = numbers[measure]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise RunsError(f"{path}: {'; '.join(faults[:5])}{more}")
    if not sources and max(sums.values(), default=1) > ALIKE * min(sums.values(), default=1):
        raise RunsError(
            f"{path}: {', '.join(names)} sum to {min(sums.values()):g} to {max(sums.values()):g} "
            "in a row, so that some may be no source's share; name those that are: --sources a b"
        )
    frame = pd.DataFrame.from_dict(shares, orient="index", columns=names)
    return frame, pd.Series(values, dtype="float64")


def _number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def sizes_of(given: Sequence[str], sources: Sequence[str]) -> dict[str, int] | None:
    """Examples of each source, from ``name=number``; None where none is given.

    Raises RunsError for a source that is missing or not known, and for what is no number.
    """
    if not given:
        return None
    found: dict[str, int] = {}
    for part in given:
        name, _, number = part.rpartition("=")
        if name not in sources or not number.isdecimal() or int(number) < 1:
            raise RunsError(
                f"--sizes {part}: write name=number, of {', '.join(sources)}"
                f"{did_you_mean(name, list(sources))}"
            )
        found[name] = int(number)
    if lacking := [name for name in sources if name not in found]:
        raise RunsError(f"--sizes: how many examples has {', '.join(lacking)}?")
    return found


def told(found: pd.DataFrame, target: Target) -> str:
    """The table and the answer as text."""
    shown = found[SHOWN].dropna(axis="columns", how="all")
    table = shown.to_string(index=False, float_format=lambda value: f"{value:.4f}")
    return f"{table}\n\n{sentence(found, target)}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when the file cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.shares.runs", description=__doc__)
    parser.add_argument("path", type=Path, help="the CSV of finished finetunes")
    parser.add_argument("--measure", default="loss", help="the column with what was measured")
    parser.add_argument("--direction", choices=get_args(Direction), default="lower",
                        help="which values are the better ones")  # fmt: skip
    parser.add_argument("--scale", choices=get_args(Scale), default="log",
                        help="on which it is regressed: of a loss its logarithm")  # fmt: skip
    parser.add_argument("--sources", nargs="+", default=[], help="their columns; default: all "
                        "others that hold numbers")  # fmt: skip
    parser.add_argument("--sizes", nargs="+", default=[], metavar="NAME=NUMBER",
                        help="examples of each source; without, nothing is proposed")  # fmt: skip
    parser.add_argument("--nearness", type=float, default=ProposalSettings().nearness)
    parser.add_argument("--repeats", type=float, default=ProposalSettings().repeats)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument(
        "--out", help="folder for the table and the proposed mixture, or its URL (docs/files.md)"
    )
    chosen = parser.parse_args(arguments)
    target = Target(chosen.measure, chosen.scale, chosen.direction)
    try:
        settings = ProposalSettings(nearness=chosen.nearness, repeats=chosen.repeats)
        shares, values = read_runs(chosen.path, chosen.measure, chosen.sources)
        held: Mapping[str, int] | None = sizes_of(chosen.sizes, list(shares.columns))
        regressed = pd.Series(target.transform(values.to_numpy()), index=values.index)
        found = shares_table(shares, regressed, held, settings, chosen.confidence, target)
        print(f"{len(shares)} runs, sources: {', '.join(shares.columns)}\n")
        print(told(found, target))
        if chosen.out is not None:
            written_at(chosen.out, "shares", lambda folder: write_out(folder, found))
    except (ValueError, FileExistsError, RemoteError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write_out(folder: Path, found: pd.DataFrame) -> Path:
    """The table, and the proposed mixture where there is one, in a folder of their own: this."""

    def write(new: Path) -> None:
        write_text(new / TABLE, found.to_csv(index=False))
        if (mix := interleaved(found)) is not None:
            write_text(new / LLAMA_FACTORY, mix)

    replace_folder(folder, (TABLE, LLAMA_FACTORY), "shares", write)
    return folder


if __name__ == "__main__":
    sys.exit(main())
