"""What the doctor finds, and how it is told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

# ok: as it should be; note: to know; warning: may fail or be slow; error: the study cannot run.
Level = Literal["ok", "note", "warning", "error"]
SIGNS: dict[Level, str] = {
    "ok": "ok     ",
    "note": "note   ",
    "warning": "WARNING",
    "error": "ERROR  ",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: where, how it is, and what to do."""

    level: Level
    area: str
    what: str
    remedy: str = ""


def printed(findings: Sequence[Finding]) -> str:
    """The findings as lines, by area; a remedy under what it mends."""
    lines, area = [], None
    for finding in findings:
        if finding.area != area:
            area = finding.area
            lines.append(area)
        what = finding.what.replace("\n", "\n           ")
        lines.append(f"  {SIGNS[finding.level]}  {what}")
        if finding.remedy:
            lines.append(f"           → {finding.remedy}")
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> str:
    """One line for all of them."""
    counts = {level: sum(f.level == level for f in findings) for level in SIGNS}
    if counts["error"]:
        return f"{counts['error']} errors keep the study from running"
    more = f"; {counts['warning']} warnings" if counts["warning"] else ""
    return f"nothing keeps the study from running{more}"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON values."""
    return {"verdict": verdict(findings), "findings": [asdict(f) for f in findings]}


def runs(findings: Sequence[Finding]) -> bool:
    """Whether nothing keeps the study from running."""
    return all(finding.level != "error" for finding in findings)
