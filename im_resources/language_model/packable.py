"""Which architectures can be given rows laid end to end, found by trying.

What they are asked is in their code, not in their configuration alone: a few short rows tell it.
"""

import logging
from functools import cache
from typing import Any

import torch

from im_resources.language_model.packing import (
    UnpackableError,
    attends_by_rows,
    pack,
    packed_states,
)
from im_resources.language_model.prompts import Encoded

log = logging.getLogger(__name__)
# What was found before in this process: an evaluation or a chunk of scores asks each time.
_WHY_NOT: dict[str, str] = {}


def attend_by_rows(model: Any, longest: int) -> None:
    """Let ``model`` attend by rows from now on.

    Args:
        longest: tokens of the longest row there will be.

    Raises UnpackableError where its rows would not be what they are alone.
    """
    window = getattr(model.config, "sliding_window", None)
    if (
        window is not None
        and window < longest
        and getattr(model.config, "use_sliding_window", True)
    ):
        raise UnpackableError(f"its attention slides over {window} tokens")
    key = (
        f"{type(model).__name__} {model.dtype} {model.device.type} {model.config.to_json_string()}"
    )
    if key not in _WHY_NOT:
        _WHY_NOT[key] = _refusal(model)
    elif not _WHY_NOT[key]:
        attends_by_rows(model)
    if _WHY_NOT[key]:
        raise UnpackableError(_WHY_NOT[key])


@cache
def tell_padded(architecture: str, doing: str, reason: str) -> None:
    """Warn, once, that what could be packed is not."""
    log.warning("%s is %s, which is slower: %s", architecture, doing, reason)


def _refusal(model: Any) -> str:
    """Why rows cannot be laid end to end; "" where they can."""
    try:
        _check_rows(model)
    except UnpackableError as error:
        return str(error)
    return ""


def _check_rows(model: Any) -> None:
    """Compare rows laid end to end with each row alone, as the architecture computes it.

    Not every architecture keeps all that a row knows of others in its attention. In bfloat16 some
    tokens' states are far off in any computation, hence the median; that no row sees another is
    told by rows that do not change when their neighbour does. In int8 a row does change with what
    is computed along with it (outliers are found over all of it: Dettmers et al. 2022,
    arXiv:2208.07339, section 3.2), in padded batches too: what these differ by is allowed.

    Raises UnpackableError when they differ.
    """
    first, *rest = [list(range(9, 2, -1)), list(range(3, 15)), [5, 7, 5, 3]]
    decoder = model.get_decoder()
    with torch.no_grad():
        alone = torch.cat(
            [
                decoder(torch.tensor([row], device=model.device), use_cache=False)[0][0]
                for row in (first, *rest)
            ]
        )
        padded = [_padded(model, rows) for rows in ([first, *rest], [first[::-1], *rest])]
        if not attends_by_rows(model):
            raise UnpackableError("its attention cannot be replaced")
        try:
            together = [_end_to_end(model, rows) for rows in ([first, *rest], [first[::-1], *rest])]
        except (TypeError, KeyError, ValueError) as unknown:
            raise UnpackableError(f"it cannot be told of rows: {unknown}") from unknown
    exact = alone.dtype == torch.float32
    mine, usual = (_differences(found, alone, len(first)) for found in (together, padded))
    for error, other, allowed in zip(mine, usual, (0.2, 0.02), strict=True):
        # Above a half, rows that see each other would look alike.
        limit = 1e-4 if exact else max(allowed, min(2 * other, 0.5))
        if not error < limit:
            raise UnpackableError(
                f"its rows differ by {error:.2g} when they lie end to end, at most {limit:.2g} is"
                " rounding"
            )


def _differences(found: list[torch.Tensor], alone: torch.Tensor, first: int) -> tuple[float, float]:
    """From each row alone, and of the other rows when the first one is another."""
    return (
        _median_error(found[0], alone),
        _median_error(found[1][first:], found[0][first:]),
    )


def _padded(model: Any, rows: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor(
        [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device
    )
    states = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    return torch.cat([state[: len(row)] for state, row in zip(states, rows, strict=True)])


def _end_to_end(model: Any, rows: list[list[int]]) -> torch.Tensor:
    examples = [Encoded(tuple(row[:2]), (tuple(row[2:]),)) for row in rows]
    return packed_states(model, pack([examples], model.device))


def _median_error(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of the tokens' states, [tokens, hidden], relative to ``theirs``."""
    errors = (mine - theirs).float().norm(dim=-1) / theirs.float().norm(dim=-1)
    return float(errors.median())
