"""``python -m im_assets.run``: the whole study in one run, into the Dagster instance of the UI."""

import sys
import time

import dagster as dg

from im_assets.definitions import PROFILE, defs
from im_assets.partitions import seed_key
from im_assets.rule.assets import RULE_FILE
from im_assets.selection.assets import SELECTION_FILE
from im_resources.study import load_study


def main() -> int:
    """Materialize every asset for all seeds of the study in ``IM_PROFILE``; 1 if a step failed."""
    study = load_study(PROFILE)
    first, last = seed_key(0), seed_key(study.mixtures.seeds - 1)
    print(
        f"study {study.name!r}: {study.mixtures.seeds} mixtures of {study.mixtures.size} examples"
    )
    start = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("study").execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            },
        )
    for event in result.get_step_success_events():
        seconds = event.step_success_data.duration_ms / 1000
        print(f"  {event.step_key:<32} {seconds:8.1f} s")
    print(f"{'done' if result.success else 'FAILED'} after {time.monotonic() - start:.0f} s")
    if not result.success:
        for event in result.filter_events(lambda e: e.is_step_failure):
            print(f"{event.step_key}: {event.message}", file=sys.stderr)
        return 1
    print(f"rule:      {study.folder / RULE_FILE}")
    print(f"selection: {study.folder / SELECTION_FILE}")
    print("look at it with `make dev`: http://127.0.0.1:3000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
