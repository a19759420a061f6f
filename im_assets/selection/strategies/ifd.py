"""ifd: where the instruction helps least, as Cherry LLM selects (arXiv 2308.12032)."""

from typing import Annotated

import numpy as np
from pydantic import Field

from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy


@strategy("ifd", needs=("ifd",))
def by_difficulty(
    pool: Pool, size: int, seed: int, below: Annotated[float, Field(gt=0)] = 1.0
) -> np.ndarray:
    """The highest instruction-following difficulty ``below`` a bound first.

    From the bound on, the instruction hinders: the authors leave such examples out
    (https://github.com/MingLiiii/Cherry_LLM, data_by_IFD.py). Here they come last, the lowest of
    them first, so that any size can be had.
    """
    values = pool.column("ifd")
    return pool.ranked(np.where(values < below, -values, values))[:size]
