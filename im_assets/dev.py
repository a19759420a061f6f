"""``python -m im_assets.dev``: the Dagster UI of the study in ``IM_PROFILE``, with its own history.

As ``dagster dev`` does, it runs a code server, the daemon and the webserver, which here is behind a
gate (``im_resources/gate.py``). The code location is named after the study, so that the UI says
whose results it shows. ``PORT`` (default 3000) lets the UIs of two studies stand side by side.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import dagster as dg
import yaml

from im_assets.mixtures.partitions import sync_study
from im_resources.runs import tell_dead_runs
from im_resources.services import ServiceError, Services
from im_resources.study import Study
from im_resources.study.environment import enter_study

DAEMON = "dagster._daemon"  # what `dagster-daemon` is as a module
DEFINITIONS = "im_assets.definitions"  # the code location


def main() -> int:
    """Serve until Ctrl-C or SIGTERM; 1 when a service ends by itself."""
    study = enter_study()
    with dg.DagsterInstance.get() as instance:
        tell_dead_runs(instance)
        sync_study(instance, study)
    port = os.environ.get("PORT") or "3000"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        # A socket's path is at most 108 bytes long, which a study's folder need not keep to.
        with tempfile.TemporaryDirectory(prefix="im-") as folder, Services() as services:
            serve(study, port, Path(folder) / "code", services)
    except KeyboardInterrupt:
        return 0
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def serve(study: Study, port: str, socket: Path, services: Services) -> None:
    """Start code server, daemon and webserver, and wait; raises ServiceError when one ends."""
    code = ["--socket", str(socket), "--location-name", study.name, "--log-level", "warning"]
    services.start("code server", "dagster", "code-server", "start", "-m", DEFINITIONS, *code)
    services.wait(socket.exists)  # it listens when the code is loaded
    workspace = ["-w", str(workspace_file(study, socket))]
    services.start("daemon", DAEMON, "run", *workspace)
    services.start("webserver", "im_resources.gate", "-h", "127.0.0.1", "-p", port, *workspace)
    print(f"study {study.name!r}: http://127.0.0.1:{port}", flush=True)
    services.wait()


def workspace_file(study: Study, socket: Path) -> Path:
    """Write the study's workspace, with one code location that has its name; return its path."""
    location = {"location_name": study.name, "socket": str(socket)}
    path = study.folder / "workspace.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
