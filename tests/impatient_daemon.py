"""Dagster's daemon, which looks every second whether a run of a backfill has ended.

It looks every 30 s, a constant without a setting: a backfill of seven runs would wait for minutes,
and `Webserver.backfill` would time out.
"""

from dagster._daemon import controller
from dagster._daemon.cli import main

if __name__ == "__main__":
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
    main()
