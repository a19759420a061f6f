"""Sends groups to the nodes of a cluster, follows them, and sends again what a node has lost.

Ray retries nothing here: a group that is tried again is another one, without the items that were
finished, and not on the node that failed it. Of a group that failed twice, each item goes alone, so
that one that takes a node down with it takes nothing else.
"""

import pickle
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from im_resources.cluster.connection import Cluster, Node, connected, disconnect, need_of
from im_resources.cluster.errand import Common, Errand, dumped
from im_resources.cluster.errors import ClusterError, ClusterGone, NodeFault
from im_resources.cluster.groups import grouped, sharded
from im_resources.cluster.versions import differences
from im_resources.cluster.words import in_short, of_need
from im_resources.deployment.schema import RayExecutor
from im_resources.usage import count, placed
from im_resources.workplace import ItemsLost, OnStep

POLL = 0.5  # seconds between two looks at the board
LOOK = 2.0  # seconds between two looks at the nodes
PATIENCE = 5.0  # seconds without a group at work until it is said that it waits
TELL = 60.0  # seconds between two lines that say that it waits
GRACE = 10.0  # seconds for a canceled group to end by itself
LEAST = 4  # groups that are asked for at once, so that a cluster that grows knows of them


@dataclass(frozen=True)
class Group:
    """Items that are sent together. ``attempt``: from 1; ``avoid``: the node that lost them."""

    name: str
    keys: tuple[str, ...]
    attempt: int = 1
    avoid: str | None = None
    after: float = 0.0  # not sent before: what failed it may need a moment


class Dispatch:
    """One task over its items."""

    def __init__(
        self,
        executor: RayExecutor,
        common: Common,
        items: Mapping[str, Any],
        on_step: OnStep | None,
    ) -> None:
        self.executor, self.items, self.on_step = executor, items, on_step
        self.common, self.need = common, need_of(executor)
        self.left = dict.fromkeys(items)
        self.failed: dict[str, Exception] = {}
        self.id, self.log = uuid.uuid4().hex[:12], dg.get_dagster_logger("cluster")
        self.waiting: deque[Group] = deque()
        self.running: dict[Any, Group] = {}
        self.begun: dict[str, str] = {}  # the node of each group that has begun
        self.nodes: list[Node] = []
        self.looked = time.monotonic()
        self.told: float | None = None
        self.idle_since: float | None = None
        self.retried = self.groups = 0

    def run(self, weights: Mapping[str, int] | None) -> Iterator[tuple[str, Any]]:
        """Yield (key, result) as items are finished.

        Args:
            weights: the examples of each item, of work that is cut by these; None: by the group
                size of the executor.

        Raises ClusterError; ItemsLost at the end.
        """
        if not self.items:
            return
        cluster, ended = connected(self.executor), False
        try:
            self._begin(cluster, weights)
            yield from self._all(cluster)
            ended = True
        except ClusterError:
            raise
        except Exception as error:
            if not _is_loss(error):
                raise
            disconnect()
            ended = True
            raise ClusterGone(
                f"the Ray cluster at {self.executor.address} is gone ({in_short(error)}); "
                f"{len(self.items) - len(self.left)} of {len(self.items)} were finished and are "
                "kept: start the same again when the cluster is back"
            ) from None
        finally:
            if not ended:
                self._cancel(cluster)
            self._end(cluster)
        if self.failed:
            raise ItemsLost(self.failed, len(self.items))

    def _begin(self, cluster: Cluster, weights: Mapping[str, int] | None) -> None:
        import ray

        ray.get(cluster.board.open.remote(self.id))
        self.nodes = cluster.nodes()
        keys, executor = list(self.items), self.executor
        cut = (
            grouped(keys, self._slots(), executor.group_size)
            if weights is None
            else sharded(weights, executor.examples_per_shard)
        )
        self.waiting.extend(Group(f"{n}/{len(cut)}", tuple(ks)) for n, ks in enumerate(cut, 1))
        self.groups = len(cut)
        self.call = cluster.work(self.need, self.common.task.__name__)
        self.shared = ray.put(dumped(self.common))
        self.log.info(
            "%s: %d items in %d groups for %d slots of %s",
            self.common.task.__name__, len(keys), len(cut), self._slots(),
            ", ".join(node.told() for node in self.nodes),
        )  # fmt: skip

    def _slots(self) -> int:
        return sum(node.slots(self.need) for node in self.nodes)

    def _all(self, cluster: Cluster) -> Iterator[tuple[str, Any]]:
        import ray

        while self.waiting or self.running:
            self._send(cluster)
            done: list[Any] = []
            if self.running:
                done, _ = ray.wait(list(self.running), num_returns=1, timeout=POLL)
            else:
                time.sleep(POLL)
            # What a group told is on the board before it ends.
            yield from self._read(cluster)
            for ref in done:
                self._ended(cluster, ref, self.running.pop(ref))
            self._wait(cluster)

    def _send(self, cluster: Cluster) -> None:
        """Groups for every slot and as many that wait for one: no slot is empty for a moment."""
        most = max(LEAST, 2 * self._slots())
        for _ in range(len(self.waiting)):
            if len(self.running) >= most:
                return
            group = self.waiting.popleft()
            if group.after > time.monotonic():
                self.waiting.append(group)
                continue
            items = {key: self.items[key] for key in group.keys if key in self.left}
            if not items:
                continue
            others = any(n.id != group.avoid and n.slots(self.need) for n in self.nodes)
            errand = dumped(Errand(group.name, group.attempt, items))
            ref = self.call(
                errand, self.shared, cluster.expected, cluster.board, self.id,
                avoid=group.avoid if others else None,
            )  # fmt: skip
            self.running[ref] = group

    def _read(self, cluster: Cluster) -> Iterator[tuple[str, Any]]:
        import ray

        for kind, *what in ray.get(cluster.board.take.remote(self.id)):
            if kind == "step" and self.on_step is not None:
                self.on_step(*what)
            elif kind == "used":
                tokens, computed, found, seconds = what
                count(tokens, computed, found, seconds)
            elif kind == "begun":
                self._has_begun(*what)
            elif kind == "result":
                _, key, content = what
                if key in self.left:  # of a group that was thought to be lost, it may come twice
                    del self.left[key]
                    yield key, pickle.loads(content)

    def _has_begun(self, name: str, node: str) -> None:
        self.begun[name] = node
        self.idle_since = None
        self.log.info("group %s begins on %s", name, self._name(node))

    def _ended(self, cluster: Cluster, ref: Any, group: Group) -> None:
        """A group is over: done, lost with its node, or failed."""
        import ray

        node = self.begun.pop(group.name, None)
        where = "a node" if node is None else self._name(node)
        try:
            how, said = ray.get(ref)
        except ray.exceptions.RayError as error:
            if _is_loss(error):
                raise
            self._again(cluster, group, node, f"{where} was lost ({in_short(error)})")
            return
        if how == "versions":
            raise ClusterError(_other_versions(self._name(said[0]), cluster.expected, said[1]))
        if how == "failed":
            content, of_the_node = said
            cause = pickle.loads(content)
            if not of_the_node:
                cause.add_note(f"on {where}")
                raise cause
            self._again(
                cluster, group, node, f"{where} failed ({type(cause).__name__}: {in_short(cause)})"
            )
            return
        if any(key in self.left for key in group.keys):
            self._again(cluster, group, node, f"{where} ended without all of its results")
            return
        placed(where)
        self.log.info("group %s is finished on %s", group.name, where)

    def _again(self, cluster: Cluster, group: Group, node: str | None, why: str) -> None:
        """Send what is left of a group once more, or give it up."""
        keys = [key for key in group.keys if key in self.left]
        if not keys:
            return
        if group.attempt >= self.executor.attempts:
            self.log.error("group %s is given up: %s", group.name, why)
            reason = NodeFault(f"{why}; tried {group.attempt} times")
            for key in keys:
                del self.left[key]
                self.failed[key] = reason
            return
        self.retried += 1
        placed(retried=1)
        self.log.warning(
            "group %s: %s; its %d unfinished items go elsewhere (attempt %d of %d)",
            group.name, why, len(keys), group.attempt + 1, self.executor.attempts,
        )  # fmt: skip
        self.nodes = cluster.nodes()
        after = time.monotonic() + 2.0 * (group.attempt - 1)
        parts = [(key,) for key in keys] if group.attempt > 1 else [tuple(keys)]
        for number, part in enumerate(parts, 1):
            name = f"{group.name}.{group.attempt + 1}" + (f".{number}" if len(parts) > 1 else "")
            self.waiting.append(Group(name, part, group.attempt + 1, node, after))

    def _wait(self, cluster: Cluster) -> None:
        """Say what is waited for, when no group runs; end it after the executor's time."""
        now = time.monotonic()
        if now - self.looked < LOOK:
            return
        self.looked, self.nodes = now, cluster.nodes()
        names = {group.name for group in self.running.values()}
        if self.begun.keys() & names or not self.running:
            self.idle_since = None
            return
        self.idle_since = self.idle_since or now
        fits = self._slots()
        waited = now - self.idle_since
        if waited >= PATIENCE and (self.told is None or now - self.told >= TELL):
            self.told = now
            what = "a node with" if not fits else "a free slot with"
            self.log.warning(
                "waiting for %s %s; the cluster has %s", what, of_need(self.need), self._there()
            )
        if not fits and waited > 60 * self.executor.wait_minutes:
            raise ClusterError(
                f"no node of the cluster has {of_need(self.need)} after "
                f"{self.executor.wait_minutes:g} minutes; it has {self._there()}: add such a node, "
                "or ask for less in the deployment's executor"
            )

    def _there(self) -> str:
        return ", ".join(node.told() for node in self.nodes) or "no node"

    def _name(self, node: str) -> str:
        return next((n.name for n in self.nodes if n.id == node), f"node {node[:8]}")

    def _cancel(self, cluster: Cluster) -> None:
        """End what runs: nodes see on the board that nobody waits, and stop at their next step or
        so; what has not begun is dropped, and what does not stop is ended by force."""
        import ray

        refs = list(self.running)
        try:
            ray.get(cluster.board.close.remote(self.id))
            for ref in refs:
                ray.cancel(ref, recursive=False)
            if refs:
                _, late = ray.wait(refs, num_returns=len(refs), timeout=GRACE)
                for ref in late:
                    ray.cancel(ref, force=True, recursive=False)
        except Exception as error:
            # The reason why it was to end matters more; the connection takes its tasks with it.
            self.log.warning("groups could not be canceled: %s", in_short(error))
            disconnect()

    def _end(self, cluster: Cluster) -> None:
        self.running.clear()
        try:
            cluster.board.close.remote(self.id)
        except Exception as error:
            self.log.debug("the board is gone: %s", in_short(error))


def _is_loss(error: Exception) -> bool:
    """Whether the connection to the cluster is lost, or the head with the board."""
    import grpc
    import ray

    lost = (ConnectionError, grpc.RpcError, ray.exceptions.RaySystemError)
    return isinstance(error, (*lost, ray.exceptions.RayActorError))


def _other_versions(where: str, mine: dict[str, str], theirs: Any) -> str:
    if isinstance(theirs, str):
        return (
            f"{where} cannot import the project ({theirs}); install the same version there, with "
            "the extra `cluster`"
        )
    return (
        f"{where} is another version: {differences(mine, theirs)}; install the same on all nodes "
        "and here, since results depend on it"
    )
