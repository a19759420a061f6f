"""Registries for tests: what a test registers is gone after it."""

from typing import Any

import pytest

from im_resources.registry import Registry


def isolate(registry: Registry[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry forget after the test what it learnt in it."""
    monkeypatch.setattr(registry, "_entries", registry.all())
    monkeypatch.setattr(registry, "_makers", dict(registry._makers))
