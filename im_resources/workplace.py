"""Where work is done: in this process, or on the node of a cluster that a group of it was sent to.

All that loads a model is a task: a function of a module, ``task(items, here, **common)``, that
yields each item's key with its result as it finishes. An asset hands it to ``gpu.run`` and does not
know where it runs: with the GPU resource of one machine it is called at once, with that of a
cluster each node calls it with the group of items that it was sent, and a workplace of its own.
Items and results travel between machines, so that they hold values and no paths.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from im_resources.adapter_store import AdapterStore
    from im_resources.gpu import GpuResource
    from im_resources.study import Study
    from im_resources.warehouse import Warehouse

Item = TypeVar("Item")
# Item, step, of so many steps, and the tokens that the step computed.
OnStep = Callable[[str, int, int, int], None]
# A claim that all machines see: its name, and what is called while another holds it (None: False
# is given at once).
Claim = Callable[[str, Callable[[], object] | None], AbstractContextManager[bool]]
Task = Callable[..., Iterator[tuple[str, Any]]]


@dataclass(frozen=True)
class Workplace:
    """What a task works with where it is done.

    Attributes:
        adapters, warehouse: None where the task needs none.
        on_step: is told of every step.
        claim: for work that two may be asked for at once; None where nobody else can be.
    """

    study: "Study"
    gpu: "GpuResource"
    adapters: "AdapterStore | None" = None
    warehouse: "Warehouse | None" = None
    on_step: OnStep | None = None
    claim: Claim | None = None

    @property
    def store(self) -> "AdapterStore":
        """The adapters, of a task that needs them."""
        assert self.adapters is not None
        return self.adapters

    @property
    def tables(self) -> "Warehouse":
        """The warehouse, of a task that needs it."""
        assert self.warehouse is not None
        return self.warehouse


class ItemsLost(RuntimeError):
    """Items that no machine could finish; the others are done. ``failed``: why, by item."""

    def __init__(self, failed: Mapping[str, Exception], total: int) -> None:
        self.failed = dict(failed)
        reasons = "; ".join(dict.fromkeys(map(str, failed.values())))
        names = ", ".join(list(failed)[:3]) + (" …" if len(failed) > 3 else "")
        super().__init__(
            f"{len(failed)} of {total} ({names}) could not be done; the others are kept, and are "
            f"not done again when you materialize these: {reasons}"
        )
