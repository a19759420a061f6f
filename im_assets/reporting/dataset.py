"""``python -m im_assets.reporting.dataset <profile> <folder>``: the selection as a dataset.

A folder that ``datasets.load_dataset`` reads, with the rows in the shape that they came in, and a
dataset card that says what selected them, how far that was checked, and with which settings. With
``--push OWNER/NAME`` it goes to the Hugging Face hub, as a private dataset unless ``--public``.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from im_assets.reporting.blocks import Code, Facts, Section, Text
from im_assets.reporting.folder import replace_folder, write_text
from im_assets.reporting.gather import Gathered, ReportError, gather
from im_assets.reporting.report import make_report
from im_assets.reporting.sections.settings import versions
from im_assets.selection.assets import selection_file
from im_resources.deployment.making import warehouse_of
from im_resources.remote import RemoteError
from im_resources.remote.exports import written_at
from im_resources.study import ProfileError, Study, load_study
from im_resources.tables import WarehouseError

Format = Literal["parquet", "jsonl"]
CARD, DATA = "README.md", "data"
TAG = "instruction-mining"  # of the card
TOLD = ("answer", "rule", "validation", "selection")  # the report's sections on the card


class PushError(RuntimeError):
    """A dataset that could not be uploaded; says where to, and why."""


def export_dataset(profile: str, folder: Path, form: Format, pool: str | None = None) -> Path:
    """Write the selection of the profile's study into ``folder`` and return it.

    Args:
        pool: whose selection; default: of the first.

    Raises:
        ReportError: nothing is selected, or what is in the file is not the selection of the rule
            as it is now; says what to materialize.
        ProfileError: no such profile, or no such pool in it.
        FileExistsError: the folder holds something else.
    """
    study = load_study(profile)
    pool = pool or study.pools[0]
    if pool not in study.pools:
        raise ProfileError(f"no pool {pool!r}; the study has: {', '.join(study.pools)}")
    warehouse = warehouse_of(study)
    if not warehouse.exists():
        raise ReportError(f"study {study.name!r} has not run: there is no {warehouse.name}")
    found = gather(study, warehouse, with_rows=False)
    rows = selected_rows(found, study, pool)
    words = card(found, pool, len(rows), form)

    def write(new: Path) -> None:
        (new / DATA).mkdir()
        path = new / DATA / f"train.{form}"
        if form == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(path, "".join(lines))
        write_text(new / CARD, words)

    _require_ours(folder)
    replace_folder(folder, (CARD, DATA), "a dataset", write)
    return folder


def _require_ours(folder: Path) -> None:
    """Many a project's folder holds a README.md and data, and nothing besides: only one whose card
    is of an export may be replaced. Raises FileExistsError for another."""
    names = [path for path in (folder / CARD, folder / DATA) if path.exists()]
    card = folder / CARD
    mine = card.is_file() and TAG in card.read_text(encoding="utf-8", errors="replace")
    if names and not mine:
        raise FileExistsError(
            f"{folder} holds {', '.join(path.name for path in names)}, which is not of an exported "
            "dataset; choose a folder of its own"
        )


def selected_rows(found: Gathered, study: Study, pool: str) -> list[dict[str, Any]]:
    """The rows of the exported selection, checked against the table and the rule.

    Raises ReportError as `export_dataset` does.
    """
    again = f"materialize {pool}_selection again"
    selection, path = found.pools[pool].selection, selection_file(study, pool)
    if found.refused:
        raise ReportError(f"{found.refused} There is nothing to export.")
    if selection is None or not path.is_file():
        raise ReportError(f"nothing is selected of {pool} yet: {again}")
    if found.of_earlier_rule(selection):
        raise ReportError(f"the selection of {pool} is of an earlier rule: {again}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ids = selection.sort_values("rank")["example_id"].astype(str).tolist()
    if [row.get("example_id") for row in rows] != ids:
        raise ReportError(f"{path} is not the selection that the warehouse holds: {again}")
    return rows


def card(found: Gathered, pool: str, count: int, form: Format) -> str:
    """The dataset card (https://huggingface.co/docs/hub/datasets-cards), Markdown with a head."""
    study = found.study
    head = {
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": f"{DATA}/train.{form}"}],
            }
        ],
        "tags": [TAG],
    }
    report = make_report(found, False, versions())
    title = f"# {count:,} examples of {pool}, selected by {study.selection.strategy}"
    licence = (
        f"The rows are of the pool `{pool}`; its licence holds for them, and is not known here. "
        "Each row tells its file, line and own id."
    )
    sections = [one for one in report.sections if one.key in TOLD]  # a study may lack one
    words = [title, licence, *(line for one in sections for line in _written(one))]
    settings = report.section("settings")
    codes = [block.text for block in settings.blocks if isinstance(block, Code)]
    words += ["## Settings", *(f"```yaml\n{text}```" for text in codes)]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n" + "\n\n".join(words) + "\n"


def _written(section: Section) -> Iterable[str]:
    """The texts and numbers of a section of the report."""
    yield f"## {section.title}"
    for block in section.blocks:
        if isinstance(block, Text):
            yield block.text
        elif isinstance(block, Facts):
            facts = [f"- {f.label}: {f.text} {f.unit}".rstrip() for f in block.items]
            yield "\n".join(facts)


def push(folder: Path, repository: str, public: bool) -> str:
    """Upload the folder as a dataset of the hub; returns its address.

    Raises PushError: not logged in, no such owner, or no way to the hub.
    """
    from httpx2 import HTTPError  # of the hub's client, which lets it through
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Selection by instruction mining",
        )
    except (HTTPError, OSError, ValueError) as error:
        raise PushError(
            f"{folder} is written, and could not be pushed to {repository} at {hub.endpoint}: "
            f"{error}"
        ) from error
    return str(done)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when nothing can be exported."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.reporting.dataset")
    parser.add_argument("profile", help="name of a profile, or path of its file")
    parser.add_argument(
        "folder", help="folder to write, or its URL (docs/files.md); an earlier one is replaced"
    )
    parser.add_argument("--format", choices=get_args(Format), default="parquet", dest="form")
    parser.add_argument("--pool", help="whose selection; default: of the profile's first")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to the hub, privately")
    parser.add_argument("--public", action="store_true", help="with --push: for everybody to see")
    chosen = parser.parse_args(arguments)
    if chosen.public and chosen.push is None:
        parser.error("--public goes with --push")
    if chosen.push is not None and "://" in chosen.folder:
        parser.error("--push uploads a folder of this machine; give its path instead of a URL")

    def write(folder: Path) -> Path:
        return export_dataset(chosen.profile, folder, chosen.form, chosen.pool)

    try:
        print(written_at(chosen.folder, "a dataset", write))
        if chosen.push is not None:
            print(push(Path(chosen.folder), chosen.push, chosen.public))
    except (
        ReportError, ProfileError, WarehouseError, FileExistsError, PushError, RemoteError,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
