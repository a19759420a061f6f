"""Trainers of the tests: LoRA that takes its time, or fails; a plugin that nodes import too."""

import errno
import os
import time

from im_assets.experiments.trainers import TrainingJob, trainer
from im_assets.experiments.trainers.lora import lora
from im_resources.language_model.side_by_side import stop_point
from im_resources.language_model.training import Training


@trainer("patient", version=1)
def patient(job: TrainingJob, seconds: float = 0.0, fails: int = -1, kills: int = -1) -> Training:
    """LoRA, after ``seconds``.

    Args:
        fails: the seed of a finetune that is an error.
        kills: the seed of one that takes its process with it.
    """
    if job.seed == fails:
        raise ValueError("these examples cannot be learned")
    if job.seed == kills:
        os.abort()
    if "IM_TESTS_FULL" in os.environ:  # of a node
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stop_point()
        time.sleep(0.05)
    return lora(job)
