"""What all blocks of settings share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
PoolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # begins assets' names
# Which rows are used where a number says how many: a sample by hash, or the first.
Take = Literal["sample", "first"]
# How a mixture's shares of its sources are drawn.
Shares = Literal["uniform", "dirichlet"]
SampleSeed = Annotated[int, Field(ge=0)]


class Settings(BaseModel):
    """Base of every settings block: typed, immutable, no unknown keys.

    A field that is added when results exist already goes into ``ADDED``, with the value under which
    results are what they were without it; the fingerprint leaves it out at that value, so that
    nothing is trained again. A field that says how something is done and never what comes out goes
    into ``UNCOUNTED``: it is in no fingerprint. One that only says how others are used goes into
    ``ONLY_WITH``, with these: it counts where one of them is set (not None). All three of a base
    class hold for its subclasses too.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {}
    UNCOUNTED: ClassVar[frozenset[str]] = frozenset()
    ONLY_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for base in cls.__bases__:
            if issubclass(base, Settings):
                cls.ADDED = {**base.ADDED, **cls.ADDED}
                cls.UNCOUNTED = base.UNCOUNTED | cls.UNCOUNTED
                cls.ONLY_WITH = {**base.ONLY_WITH, **cls.ONLY_WITH}
        named = cls.ADDED.keys() | cls.UNCOUNTED | cls.ONLY_WITH.keys()
        named |= {name for names in cls.ONLY_WITH.values() for name in names}
        if unknown := sorted(named - cls.model_fields.keys()):
            raise TypeError(
                f"{cls.__name__}.ADDED, UNCOUNTED or ONLY_WITH names fields that there are not: "
                f"{unknown}"
            )


def expanded(value: Any, key: str) -> Any:
    """``name: text`` as ``name: {key: text}``, the short form of a block with options."""
    if not isinstance(value, dict):
        return value
    return {k: {key: v} if isinstance(v, str) else v for k, v in value.items()}
