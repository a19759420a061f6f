"""``python -m im_assets.dev``: the Dagster UI of the study in ``IM_PROFILE``, with its own history.

The code location is named after the study, so that the UI says whose results it shows. ``PORT``
(default 3000) lets the UIs of two studies stand side by side.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import dagster as dg
import yaml

from im_assets.mixtures.partitions import sync_study
from im_resources.study import PROJECT_ROOT, Study
from im_resources.study.environment import enter_study


def main() -> NoReturn:
    """Become ``dagster dev``."""
    study = enter_study()
    with dg.DagsterInstance.get() as instance:
        sync_study(instance, study)
    port = os.environ.get("PORT") or "3000"
    print(f"study {study.name!r}: http://127.0.0.1:{port}", flush=True)
    dagster = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", port]
    os.execv(sys.executable, [*dagster, "-w", str(workspace_file(study))])


def workspace_file(study: Study) -> Path:
    """Write the study's workspace, with one code location that has its name; return its path."""
    module = {
        "module_name": "im_assets.definitions",
        "location_name": study.name,
        "working_directory": str(PROJECT_ROOT),
    }
    path = study.folder / "workspace.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
