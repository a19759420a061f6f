"""The definitions, for a code server whose runs are forked from a process that has imported torch.

Dagster spawns the process of a run, which then imports torch, transformers and PEFT: 8 s of
processor time, more than the run of a tiny study. Python's fork server gives a run a process of its
own all the same, to be killed and terminated.
"""

import multiprocessing
from multiprocessing import context

from im_assets.definitions import defs
from tests.processes import PRELOADED

__all__ = ["defs"]

context.SpawnContext.Process = context.ForkServerProcess  # type: ignore[assignment]
multiprocessing.set_forkserver_preload(list(PRELOADED))
