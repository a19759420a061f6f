"""``python -m im_assets.serve -h HOST -p PORT``: a deployment's code location (deploy/compose).

It is ``dagster code-server start``, with its options, once the runs that ended with the last one
are marked failed, and the study's seeds are the partitions of the deployment's history: what
``im_assets.dev`` sees to on one's own machine.
"""

import os
import sys
from typing import NoReturn

import dagster as dg

from im_assets.mixtures.partitions import sync_study
from im_resources.runs import tell_dead_runs
from im_resources.study.environment import environment


def main() -> NoReturn:
    """Become the code server; SystemExit with the message for a profile that is wrong."""
    study = environment()[0]
    with dg.DagsterInstance.get() as instance:
        tell_dead_runs(instance)
        sync_study(instance, study)
    server = ["-m", "dagster", "code-server", "start", "-m", "im_assets.definitions"]
    os.execv(sys.executable, [sys.executable, *server, *sys.argv[1:]])


if __name__ == "__main__":
    main()
