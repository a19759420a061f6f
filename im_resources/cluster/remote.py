"""What Ray executes on a node, before anything of ours is imported there.

These functions travel as their code, not as the name of a module: a node where the project is
missing, or is another version, can say so.
"""

import pickle
from collections.abc import Callable
from typing import Any

BOUND = 256  # messages that wait on the board before nodes have to wait


def functions() -> tuple[Callable[..., Any], Callable[..., Any], type]:
    """(work, look, Board): a group's work; what a node says of itself; where groups tell.

    Defined in here, so that cloudpickle takes their code along.
    """
    bound = BOUND

    def look(question: bytes | None = None) -> dict[str, Any]:
        """This node's versions and clock, or why the project cannot be imported; and what it
        answers to a question, a function that travels by its name."""
        import time

        try:
            from im_resources.cluster.versions import versions

            found: Any = versions()
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        said = {"versions": found, "time": time.time()}
        if question is not None and isinstance(found, dict):
            said["answer"] = pickle.loads(question)()
        return said

    def work(errand: bytes, common: bytes, expected: dict[str, str], board: Any, run: str) -> Any:
        """Do a group; what it finishes goes to the board. Returns how it ended."""
        import ray

        found = look()["versions"]
        if found != expected:
            return ("versions", (str(ray.get_runtime_context().get_node_id()), found))
        from im_resources.cluster.node import work_on

        return work_on(errand, common, board, run)

    class Board:
        """Where the groups of all runs of a connection tell what they did, until it is read."""

        def __init__(self) -> None:
            self.waiting: dict[str, list[Any]] = {}

        def open(self, run: str) -> None:
            self.waiting[run] = []

        def close(self, run: str) -> None:
            self.waiting.pop(run, None)

        def put(self, run: str, messages: list[Any]) -> str:
            """Keep messages; "closed" where nobody reads them any more, "full" where not yet."""
            if run not in self.waiting:
                return "closed"
            if len(self.waiting[run]) >= bound:
                return "full"
            self.waiting[run] += messages
            return "kept"

        def take(self, run: str) -> list[Any]:
            """All messages of a run, which are not kept any longer."""
            messages = self.waiting[run]
            self.waiting[run] = []
            return messages

    return work, look, Board
