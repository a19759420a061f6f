"""Keys of results: a hash of everything that changes them, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from im_resources.study.schema import Settings


def fingerprint(*parts: Any) -> str:
    """SHA-256 (first 16 hex digits) of settings or plain values, stable across processes.

    Every field of settings counts, one at its default too: a default that changes later changes
    what is computed, and so has to change the key of it. Only a field that was added when results
    existed already (``Settings.ADDED``) is left out at the value that computes what they are, and
    one that changes no result (``Settings.UNCOUNTED``) always, and one that says how others are
    used (``Settings.ONLY_WITH``) where none of them is set.
    """

    def plain(part: Any) -> Any:
        if isinstance(part, BaseModel):
            return settings_content(part)
        return str(part)

    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_content(settings: BaseModel) -> dict[str, Any]:
    """What counts of settings in a fingerprint, as JSON values by field."""
    return settings.model_dump(mode="json", exclude=_left_out(settings))


def _left_out(value: Any) -> dict[Any, Any]:
    """Where in ``value`` fields do not count, as pydantic's ``exclude``."""
    added: Mapping[str, Any] = {}
    uncounted: frozenset[str] = frozenset()
    only_with: Mapping[str, tuple[str, ...]] = {}
    if isinstance(value, BaseModel):
        if isinstance(value, Settings):
            added, uncounted, only_with = value.ADDED, value.UNCOUNTED, value.ONLY_WITH
        items: Mapping[Any, Any] = dict(value)
    elif isinstance(value, Mapping):
        items = value
    elif isinstance(value, list | tuple):
        items = dict(enumerate(value))
    else:
        return {}
    left_out: dict[Any, Any] = {}
    for key, item in items.items():
        idle = key in only_with and all(getattr(value, name) is None for name in only_with[key])
        if idle or key in uncounted or (key in added and item == added[key]):
            left_out[key] = True
        elif nested := _left_out(item):
            left_out[key] = nested
    return left_out
