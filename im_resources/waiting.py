"""A step that waits for a slot of a pool says who has it, and sleeps.

Dagster 1.13 asks its storage for the slot every 1 to 15 s, but in between it spins: the time until
it asks again comes from a ``min`` that is never above zero
(`InstanceConcurrencyContext.interval_to_next_pending_claim_check`), so that a waiting run takes
most of a core. It also names no holder. Nothing public is called while it waits, so this one
private method is replaced.
"""

import sys
import time
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

from im_resources.runs import PROCESS, clear_dead_runs

EVERY = 30.0  # seconds between two lines about the holder
NAP = 1.0  # seconds; an interrupt is seen after it, and a step that may be retried


def install() -> None:
    """Have every step of this process wait in this way."""
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _nap  # type: ignore[method-assign]


def _nap(self: Any) -> float:
    """Seconds to sleep before the slot is looked at; from time to time, says what it waits for."""
    if not self._pending_claims:
        return 0.0
    now = time.monotonic()
    if now - getattr(self, "_told", -EVERY) >= EVERY:
        self._told = now
        if clear_dead_runs(self._instance):
            self._pending_timeouts.clear()  # ask again at once
            return 0.0
        tell(self._instance, self._run_id)
    until = min((self._pending_timeouts[step] for step in self._pending_claims), default=0.0)
    return min(max(until - time.time(), 0.05), NAP)


def tell(instance: dg.DagsterInstance, run_id: str) -> None:
    """Say in the run's log and on the terminal what the run waits for."""
    for step_key, line in waits(instance, run_id).items():
        run = instance.get_run_by_id(run_id)
        if run is not None:
            instance.report_engine_event(line, run, step_key=step_key)
        print(f"  {line}", file=sys.stderr, flush=True)


def waits(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """For each step of the run that waits for a slot: for which, and who has it, in words."""
    storage, found = instance.event_log_storage, {}
    for pool, info in storage.get_concurrency_infos(sorted(storage.get_concurrency_keys())).items():
        claimed = {(slot.run_id, slot.step_key) for slot in info.claimed_slots}
        waiting = [
            step for step in info.pending_steps if (step.run_id, step.step_key) not in claimed
        ]
        holders = [_holder(instance, slot.run_id, slot.step_key) for slot in info.claimed_slots]
        for step in waiting:
            if step.run_id != run_id:
                continue
            others = len(waiting) - 1
            found[step.step_key] = (
                f"{step.step_key} waits for one of {info.slot_count} slots of the pool {pool!r}, "
                f"held by {' and '.join(holders) or 'no run any more'}"
                + (f"; {others} more wait" if others else "")
            )
    return found


def _holder(instance: dg.DagsterInstance, run_id: str, step_key: str) -> str:
    run = instance.get_run_by_id(run_id)
    if run is None:
        return f"run {run_id[:8]}, which is deleted"
    begun = [stats.start_time for stats in instance.get_run_step_stats(run_id, [step_key])]
    since = f" since {datetime.fromtimestamp(begun[0]):%H:%M:%S}" if begun and begun[0] else ""
    where = run.tags.get(PROCESS, "process unknown")
    return f"run {run_id[:8]} (job {run.job_name}, step {step_key}, {where}){since}"
