"""Make a selection: a strategy's order, thinned by the profile's quotas, strata and duplicates."""

import numpy as np

from im_assets.selection.limits import Limits
from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy_of
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings, StrategySettings


def resolve_size(size: int | float, pool_size: int) -> int:
    """How many examples ``size`` means: a number, or a fraction (0, 1) of the pool, at least 1.

    Raises SelectionError when the pool holds fewer.
    """
    wanted = size if isinstance(size, int) else max(1, round(size * pool_size))
    if wanted > pool_size:
        raise SelectionError(
            f"selection.size is {wanted}, but the unseen pool holds only {pool_size} examples"
        )
    return wanted


def choose(
    settings: StrategySettings,
    pool: Pool,
    size: int,
    seed: int,
    limits: SelectionSettings | None = None,
) -> np.ndarray:
    """Positions of the ``size`` selected examples in the pool, best first.

    Args:
        settings: the strategy and its options.
        seed: what a random strategy draws by.
        limits: whose quotas and near-duplicate threshold hold; default: those of ``settings``
            itself when it is the profile's ``selection``, else none.

    Raises:
        SelectionError: an unknown strategy or option; a pool that is too small or lacks an
            indicator; limits that leave fewer than ``size``, with how many could be had.
    """
    resolve_size(size, len(pool))
    found, options = strategy_of(settings)
    if limits is None and isinstance(settings, SelectionSettings):
        limits = settings
    thin = Limits.of(limits, pool, size)
    asked = size
    while True:
        order = np.asarray(found.choose(pool, asked, seed, **options))
        _check(order, found.name, asked, len(pool))
        kept = order if thin is None else thin.walk(order)
        if len(kept) == size:
            return kept
        if asked == len(pool):
            raise SelectionError(
                f"the limits of the selection leave {len(kept)} of the {size} examples wanted "
                f"(pool: {len(pool)}); lower selection.size, or raise selection.max_share or "
                "selection.near_duplicate_similarity, or leave out selection.stratify"
            )
        asked = min(2 * asked, len(pool))


def _check(order: np.ndarray, name: str, size: int, pool_size: int) -> None:
    whole = order.shape == (size,) and np.issubdtype(order.dtype, np.integer)
    inside = order[(order >= 0) & (order < pool_size)] if whole else order
    if not whole or len(np.unique(inside)) != size:
        raise SelectionError(
            f"strategy {name!r} has to give {size} different positions of a pool of {pool_size}, "
            f"but gave {order.dtype} of shape {order.shape}"
        )
