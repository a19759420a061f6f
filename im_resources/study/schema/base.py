"""What all blocks of settings share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
PoolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # begins assets' names


class Settings(BaseModel):
    """Base of every settings block: typed, immutable, no unknown keys.

    A field that is added when results exist already goes into ``ADDED``, with the value under which
    results are what they were without it; the fingerprint leaves it out at that value, so that
    nothing is trained again. A field that says how something is done and never what comes out goes
    into ``UNCOUNTED``: it is in no fingerprint. Both of a base class hold for its subclasses too.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {}
    UNCOUNTED: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for base in cls.__bases__:
            if issubclass(base, Settings):
                cls.ADDED = {**base.ADDED, **cls.ADDED}
                cls.UNCOUNTED = base.UNCOUNTED | cls.UNCOUNTED
        if unknown := sorted((cls.ADDED.keys() | cls.UNCOUNTED) - cls.model_fields.keys()):
            raise TypeError(
                f"{cls.__name__}.ADDED or UNCOUNTED names fields that there are not: {unknown}"
            )


def expanded(value: Any, key: str) -> Any:
    """``name: text`` as ``name: {key: text}``, the short form of a block with options."""
    if not isinstance(value, dict):
        return value
    return {k: {key: v} if isinstance(v, str) else v for k, v in value.items()}
