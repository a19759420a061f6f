"""The documents of ``deploy/ray``, and who reaches whom by their network policies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from im_resources.study import PROJECT_ROOT

RAY = PROJECT_ROOT / "deploy" / "ray"
# What the operator adds to a pod of the cluster `ray`, beside the template's own labels.
CLUSTER, NODE_TYPE = "ray.io/cluster", "ray.io/node-type"
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Pod:
    """A kind of pod: its labels once it runs, and its specification."""

    name: str
    labels: Labels
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        """Its own container, beside which an operator may add others."""
        (container,) = self.spec["containers"]
        return dict(container)


@cache
def documents() -> tuple[dict[str, Any], ...]:
    """Every document of every file that kustomization.yaml names."""
    names = yaml.safe_load((RAY / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return tuple(
        document
        for name in names
        for document in yaml.safe_load_all((RAY / name).read_text(encoding="utf-8"))
    )


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """The documents of a kind, by their names."""
    return {d["metadata"]["name"]: d for d in documents() if d["kind"] == kind}


@cache
def cluster() -> dict[str, Any]:
    """The specification of the one Ray cluster."""
    (found,) = of_kind("RayCluster").values()
    return dict(found["spec"])


@cache
def pods() -> dict[str, Pod]:
    """Every kind of pod; Ray's are called ``ray-head`` and ``ray-<group>``."""
    templates = {
        name: document["spec"]["template"]
        for kind in ("Deployment", "StatefulSet")
        for name, document in of_kind(kind).items()
    }
    found = {n: Pod(n, t["metadata"]["labels"], t["spec"]) for n, t in templates.items()}
    groups = [("head", "head", cluster()["headGroupSpec"])]
    groups += [(g["groupName"], "worker", g) for g in cluster()["workerGroupSpecs"]]
    for name, kind, group in groups:
        own = group["template"]["metadata"].get("labels", {})
        labels = {**own, CLUSTER: "ray", NODE_TYPE: kind}
        found[f"ray-{name}"] = Pod(f"ray-{name}", labels, group["template"]["spec"])
    return found


def settings() -> dict[str, str]:
    """What the ConfigMap tells every process."""
    return dict(of_kind("ConfigMap")["settings"]["data"])


# -- network policies ------------------------------------------------------------------------------


def reaches(sender: Labels, receiver: Labels, port: int) -> bool:
    """Whether a pod of this namespace may open a TCP connection to another one's port."""
    return _allowed("Egress", sender, receiver, port) and _allowed(
        "Ingress", receiver, sender, port
    )


def open_to(receiver: Labels, port: int) -> Iterator[dict[str, Any]]:
    """The senders beyond this namespace that the policies name for a port."""
    for rule in _rules("Ingress", receiver):
        if _port_fits(rule, port):
            peers = rule.get("from", [{"anybody": True}])
            yield from (p for p in peers if set(p) != {"podSelector"})


def _rules(direction: str, pod: Labels) -> Iterator[dict[str, Any]]:
    for policy in of_kind("NetworkPolicy").values():
        spec = policy["spec"]
        if direction in spec["policyTypes"] and selects(spec["podSelector"], pod):
            yield from spec.get(direction.lower(), ())


def _allowed(direction: str, pod: Labels, other: Labels, port: int) -> bool:
    side = {"Egress": "to", "Ingress": "from"}[direction]
    return any(
        _port_fits(rule, port)
        and (side not in rule or any(_is(peer, other) for peer in rule[side]))
        for rule in _rules(direction, pod)
    )


def _port_fits(rule: Mapping[str, Any], port: int) -> bool:
    ports = rule.get("ports")
    return not ports or any(p["port"] == port and p.get("protocol", "TCP") == "TCP" for p in ports)


def _is(peer: Mapping[str, Any], pod: Labels) -> bool:
    # An address may be any pod's; one of another namespace is none of ours.
    return "ipBlock" in peer or (
        "namespaceSelector" not in peer and selects(peer["podSelector"], pod)
    )


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a selector by labels, the only kind that these files use, is of a pod."""
    assert set(selector) <= {"matchLabels"}, selector
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
