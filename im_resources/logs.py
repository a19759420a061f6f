"""Structured logs: a line of JSON an event, one file a run, in the folder ``logs`` of the study.

``dagster.yaml`` hands every event of every run to ``JsonLines``, whoever started the run. It
writes where ``IM_LOG_FORMAT=json`` is set (``python -m im_assets.run --log-format json`` sets it),
and nothing otherwise. A run is one process, so no two processes write one file.
"""

import json
import logging
import os
import re
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import dagster as dg

from im_resources.study.places import state_home

FORMAT = "IM_LOG_FORMAT"
MEGABYTES, KEPT_PARTS = 20, 3  # of one run: its file, and how many before it
KEPT_RUNS = 200


def wanted() -> bool:
    """Whether the environment asks for structured logs. Raises ValueError on another format."""
    chosen = os.environ.get(FORMAT, "text")
    if chosen not in ("text", "json"):
        raise ValueError(f"{FORMAT} is {chosen!r}; it can be text or json")
    return chosen == "json"


def log_folder() -> Path:
    """Beside the study's history, so that it is that of the study whose run it is."""
    state = os.environ.get("DAGSTER_STATE")
    return (Path(state).resolve().parent if state else state_home()) / "logs"


class JsonLines(logging.Handler):
    """Writes the records of Dagster's runs to ``<run id>.jsonl``; others pass by."""

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._run: str | None = None
        self._file: RotatingFileHandler | None = None
        self._wanted = wanted()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. A log that cannot be written does not fail the run."""
        if not self._wanted:
            return
        run_id = getattr(record, "dagster_meta", {}).get("run_id")
        if not run_id or not re.fullmatch(r"[A-Za-z0-9-]+", run_id):
            return
        try:
            self._file_of(run_id).emit(logging.makeLogRecord({"msg": json_line(record)}))
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
        self._run = self._file = None
        super().close()

    def _file_of(self, run_id: str) -> RotatingFileHandler:
        if self._file is None or self._run != run_id:
            if self._file is not None:
                self._file.close()
            folder = log_folder()
            folder.mkdir(parents=True, exist_ok=True)
            prune(folder)
            self._file = RotatingFileHandler(
                folder / f"{run_id}.jsonl",
                maxBytes=MEGABYTES * 2**20,
                backupCount=KEPT_PARTS,
                encoding="utf-8",
            )
            self._run = run_id
        return self._file


def json_line(record: logging.LogRecord) -> str:
    """A record as one line: time, level, run_id and message always, and what else is known of it.

    Numbers of a materialization come with it (``metadata``), texts and figures do not.
    """
    meta = getattr(record, "dagster_meta", {})
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "run_id": meta.get("run_id"),
        "job": meta.get("job_name"),
        "step": meta.get("step_key"),
        "message": meta.get("orig_message", record.getMessage()),
        "process": record.process,
    }
    event = meta.get("dagster_event")
    if event is not None:
        # As the documentation calls them; a run was a pipeline once, and is stored under that.
        name = event.event_type_value.replace("PIPELINE_", "RUN_")
        line |= {"event": name, **_of_event(event)}
    return json.dumps({k: v for k, v in line.items() if v is not None}, ensure_ascii=False)


def _of_event(event: dg.DagsterEvent) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if event.is_step_materialization:
        made = event.step_materialization_data.materialization
        numbers = {k: v.value for k, v in made.metadata.items()}
        fields = {
            "asset": made.asset_key.to_user_string(),
            "partition": made.partition,
            "metadata": {k: v for k, v in numbers.items() if isinstance(v, int | float)},
        }
    elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        found = event.asset_check_evaluation_data
        fields = {
            "asset": found.asset_key.to_user_string(),
            "check": found.check_name,
            "passed": found.passed,
            "severity": found.severity.value,
        }
    data = event.event_specific_data
    if (duration := getattr(data, "duration_ms", None)) is not None:
        fields["seconds"] = round(duration / 1000, 3)
    if error := getattr(data, "error", None):
        causes = [error]
        while causes[-1].cause is not None:
            causes.append(causes[-1].cause)
        last = causes[-1]
        fields["error"] = {
            "kind": last.cls_name,
            "message": last.message.strip(),
            "stack": "".join(last.stack),
        }
    return fields


def prune(folder: Path) -> None:
    """Remove the files of the oldest runs, so that the newest ``KEPT_RUNS`` stay."""

    def age(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:  # another run removed it
            return 0.0

    for path in sorted(folder.glob("*.jsonl"), key=age)[: -KEPT_RUNS or None]:
        for part in folder.glob(f"{path.name}*"):
            part.unlink(missing_ok=True)
