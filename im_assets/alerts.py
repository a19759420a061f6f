"""``python -m im_assets.alerts --check-heartbeat``: the watcher of the watcher, for cron.

The sensor ``alerts`` runs in Dagster's daemon and cannot tell that the daemon is dead. This looks
from outside: whatever has stopped ticking is posted once, printed, and gives the exit code 1.
``--test`` posts a message that says that it is a test.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import dagster as dg

from im_assets.automation.alerts import AlertError, stopped, webhook_of
from im_assets.automation.failures import Alert
from im_assets.automation.heartbeats import Watch, silent_daemons, silent_ticks
from im_resources.study import Study
from im_resources.study.environment import enter_study
from im_resources.webhook import WebhookError

MEMORY = "heartbeats.json"  # in the study's folder: what was told


def main() -> int:
    """Look once; 1 when something has stopped, or cannot be told."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.alerts", description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--check-heartbeat", action="store_true", help="post what stopped ticking")
    chosen.add_argument("--test", action="store_true", help="post a test")
    arguments = parser.parse_args()
    study = enter_study()
    if study.alerts is None:
        parser.error(f"the study {study.name!r} has no block `alerts` in its profile")
    try:
        if arguments.test:
            webhook_of(study.alerts).post(
                Alert("test", "test", "a test of the alerts", "", study.name).message()
            )
            return 0
        return 0 if check_heartbeat(study) else 1
    except (AlertError, WebhookError) as error:
        print(error, file=sys.stderr)
        return 1


def check_heartbeat(study: Study) -> bool:
    """Post what has stopped since the last look; False while anything has.

    Raises AlertError or WebhookError when it cannot be posted; it is tried again at the next look.
    """
    from im_assets.definitions import defs  # reads the environment of the study

    assert study.alerts is not None
    now, patience = time.time(), 60.0 * study.alerts.silence_minutes
    memory = study.folder / MEMORY
    with dg.DagsterInstance.get() as instance:
        dead = silent_daemons(instance, now, patience)
        # Without its daemon everything else is silent too; that is no further news.
        silent = dead or silent_ticks(instance, defs.get_repository_def(), now, patience)
    due, watch = remembered(memory).look(silent, now, 0 if dead else patience)
    try:
        for silence in due:
            print(f"{silence.name}: {silence.cause}", file=sys.stderr)
            webhook_of(study.alerts).post(stopped(silence, study).message())
            watch = watch.telling(silence.name)
    finally:
        memory.write_text(json.dumps(watch.content()), encoding="utf-8")
    return not silent


def remembered(memory: Path) -> Watch:
    """What earlier looks wrote; nothing where the file is not there, or not whole."""
    try:
        return Watch.of(json.loads(memory.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return Watch.of(None)


if __name__ == "__main__":
    sys.exit(main())
