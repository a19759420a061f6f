"""The whole report: sections in order, and the folder that they are written into."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from im_assets.reporting.blocks import Section, document
from im_assets.reporting.folder import replace_folder, write_text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.page import figure_files, render_page
from im_assets.reporting.sections import (
    answer,
    costs,
    data,
    evidence,
    examples,
    judge,
    measures,
    mixtures,
    ready,
    rounds,
    rule,
    settings,
    shares,
    size_search,
    transfer,
    univariate,
    validation,
)
from im_resources.study import Study

PAGE, NUMBERS, FIGURES = "index.html", "report.json", "figures"
FORMAT, VERSION = "instruction-mining/report", 2


@dataclass(frozen=True)
class Report:
    """A study's report, ready to be written."""

    study: Study
    sections: tuple[Section, ...]
    made: str = ""

    def section(self, key: str) -> Section:
        return next(s for s in self.sections if s.key == key)

    def document(self) -> dict[str, Any]:
        """Every text and number of the page, for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "study": self.study.name,
            "label": self.study.label,
            "made": self.made or None,
            "sections": {s.key: document(s) for s in self.sections},
        }


def make_report(
    found: Gathered, with_rows: bool, versions: Mapping[str, str], made: str = ""
) -> Report:
    """The report of the gathered tables.

    Args:
        with_rows: show examples of the data; else none of its texts is in the report.
        versions: of what ran, by name.
        made: a date to show; without, equal tables give equal bytes.
    """
    if found.study.fits_nothing:
        return Report(found.study, _of_ready_rule(found, with_rows, versions), made)
    if found.study.runs is not None:
        return Report(found.study, _of_own_runs(found, with_rows, versions), made)
    sections = (
        answer.section(found),
        shares.section(found),
        data.section(found),
        mixtures.section(found),
        rule.section(found),
        evidence.section(found),
        *rounds.sections(found),
        *measures.sections(found),
        univariate.section(found),
        validation.section(found),
        costs.section(found),
        size_search.section(found),
        judge.section(found),
        transfer.section(found),
        examples.section(found, with_rows),
        settings.section(found, versions),
    )
    return Report(found.study, sections, made)


def _of_ready_rule(
    found: Gathered, with_rows: bool, versions: Mapping[str, str]
) -> tuple[Section, ...]:
    """The sections of a study that only applies a ready rule."""
    return (
        ready.answer(found),
        ready.data(found),
        ready.rule(found),
        examples.section(found, with_rows),
        settings.section(found, versions),
    )


def _of_own_runs(
    found: Gathered, with_rows: bool, versions: Mapping[str, str]
) -> tuple[Section, ...]:
    """The sections of a study of finetunes that were made elsewhere."""
    return (
        answer.section(found),
        data.section(found),
        mixtures.section(found),
        rule.section(found),
        evidence.section(found),
        shares.section(found),
        examples.section(found, with_rows),
        settings.section(found, versions),
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write page, figures and numbers into ``folder``, replacing an earlier report there.

    All is written beside it first and put in place by rename. Returns the page's path.

    Raises FileExistsError when the folder holds something that is not a report.
    """
    folder = folder.resolve()

    def write(new: Path) -> None:
        (new / FIGURES).mkdir()
        for name, text in figure_files(report.sections).items():
            write_text(new / FIGURES / name, text)
        numbers = json.dumps(report.document(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(new / NUMBERS, numbers + "\n")
        write_text(new / PAGE, render_page(report.study, report.sections, report.made))

    replace_folder(folder, (PAGE, NUMBERS, FIGURES), "a report", write)
    return folder / PAGE
