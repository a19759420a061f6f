"""What goes wrong on a cluster, and whose fault it is: the item's, or the node's."""

# By their names: which of them are installed differs, and none is imported for this.
OF_SERVICES = {
    "psycopg2.OperationalError",
    "psycopg2.InterfaceError",
    "duckdb.IOException",
    "duckdb.HTTPException",
    "torch.AcceleratorError",
}


class ClusterError(RuntimeError):
    """The cluster cannot do the work; says why, and what to do."""


class ClusterGone(ClusterError):
    """The cluster was there and is no more; what was finished is kept."""


class NodeFault(RuntimeError):
    """A node could not do its work, for a reason that is not the work's; says which and why."""


def of_the_node(error: BaseException) -> bool:
    """Whether another node, or another time, may do better: disk, GPU, or a service that it needs.

    A causing error counts too: what wraps it says more, and is of the same fault.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError | NodeFault) or "CUDA error" in str(seen):
            return True
        names = {f"{kind.__module__.split('.')[0].lstrip('_')}.{kind.__name__}"
                 for kind in type(seen).__mro__}  # fmt: skip
        if names & OF_SERVICES:
            return True
        seen = seen.__cause__
    return False
