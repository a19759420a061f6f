"""The automation sensor's ticks on a study in a process, and what it starts."""

from typing import Any

import dagster as dg

from im_assets.automation.conditions import TAGS
from tests.study import Platform

ENOUGH = 10  # rounds after which a study that still asks for more will never come to rest


class Ticks:
    """The ticks of one sensor, one after another."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.cursor: Any = None  # of Dagster's own type, which it does not export

    def tick(self) -> set[str]:
        """The assets that are requested now."""
        result = dg.evaluate_automation_conditions(
            self.platform.definitions, self.platform.instance, cursor=self.cursor
        )
        self.cursor = result.cursor
        requested = [r.key for r in result.results if not r.true_subset.is_empty]
        return {key.to_user_string() for key in requested if isinstance(key, dg.AssetKey)}

    def start(self, names: set[str]) -> dg.ExecuteInProcessResult:
        """The run that a tick started."""
        return self.platform.materialize(*sorted(names), tags=TAGS)

    def follow(self) -> list[set[str]]:
        """Tick and run what is requested, until nothing is; what each run was of."""
        runs = []
        while requested := self.tick():
            runs.append(requested)
            assert len(runs) < ENOUGH, runs
            self.start(requested)
        return runs
