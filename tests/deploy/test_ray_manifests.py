"""What the manifests of a cluster, its nodes' command and its images promise; no cluster needed."""

import base64
import json
import os
import re
import subprocess
import tempfile
import tomllib
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from im_resources.deployment import RayExecutor, load_deployment
from im_resources.deployment.making import gpu_of
from im_resources.study import PROJECT_ROOT, load_study
from tests.deploy.manifests import (
    NODE_TYPE,
    RAY,
    Pod,
    cluster,
    documents,
    of_kind,
    open_to,
    pods,
    reaches,
    settings,
)

COMPOSE = PROJECT_ROOT / "deploy" / "compose"
NODE = RAY / "node"
UP = ("up.aws.yaml", "up.local.yaml")
RAY_PODS = [name for name in pods() if name.startswith("ray-")]
OTHERS = [name for name in pods() if not name.startswith("ray-")]
PINNED = r"[\w./-]+:\d+\.\d+(\.\d+)?(-\w+)*"
# Of an instance of a deployment: ports of Ray's own, and those of its two servers.
GCS, CLIENT, DASHBOARD = 6379, 10001, 8265
SIZES = {"m": Fraction(1, 1000), "": Fraction(1), "Mi": Fraction(2**20), "Gi": Fraction(2**30)}


def size(quantity: Any) -> Fraction:
    """Cores or bytes of a quantity."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", str(quantity)).groups()  # type: ignore[union-attr]
    return Fraction(number) * SIZES[unit]


def project_version() -> str:
    text = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version: str = tomllib.loads(text)["project"]["version"]
    return version


# -- rights and limits -------------------------------------------------------------------------


@pytest.mark.parametrize("pod", pods().values(), ids=lambda pod: pod.name)
def test_a_pod_has_no_more_rights_than_it_needs(pod: Pod) -> None:
    security = pod.spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["serviceAccountName"] in of_kind("ServiceAccount")
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.spec.keys()
    assert not [v for v in pod.spec["volumes"] if "hostPath" in v]
    contexts = [pod.container["securityContext"]]
    if pod.name == "ray-head":
        contexts.append(cluster()["autoscalerOptions"]["securityContext"])
    for context in contexts:
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("pod", pods().values(), ids=lambda pod: pod.name)
def test_a_container_is_pinned_and_limited_and_says_how_it_is(pod: Pod) -> None:
    container = pod.container
    assert re.fullmatch(PINNED, container["image"])
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= container["resources"][kind].keys()
    assert {"readinessProbe", "livenessProbe"} & container.keys()
    for name, volume in ((v["name"], v) for v in pod.spec["volumes"]):
        if "emptyDir" in volume:
            assert "sizeLimit" in volume["emptyDir"], name
    places = {v["name"] for v in pod.spec["volumes"]} | set(_claims(pod))
    assert {m["name"] for m in container["volumeMounts"]} <= places


def _claims(pod: Pod) -> list[str]:
    found = of_kind("StatefulSet").get(pod.name, {"spec": {}})["spec"]
    return [claim["metadata"]["name"] for claim in found.get("volumeClaimTemplates", ())]


def test_nobody_but_the_autoscaler_has_a_token_of_kubernetes() -> None:
    for account in of_kind("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    holders = [
        (pod.name, volume["name"])
        for pod in pods().values()
        for volume in pod.spec["volumes"]
        if any("serviceAccountToken" in s for s in volume.get("projected", {}).get("sources", ()))
    ]
    assert holders == [("ray-head", "kubernetes")]
    head = pods()["ray-head"].container
    assert "kubernetes" not in {mount["name"] for mount in head["volumeMounts"]}
    options = cluster()["autoscalerOptions"]
    assert "kubernetes" in {mount["name"] for mount in options["volumeMounts"]}
    assert not of_kind("Role") | of_kind("ClusterRole") | of_kind("RoleBinding")  # KubeRay's own


def test_the_largest_cluster_fits_into_the_quota() -> None:
    hard = of_kind("ResourceQuota")["quota"]["spec"]["hard"]
    number = dict.fromkeys(pods(), 1)
    for group in cluster()["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        number[f"ray-{group['groupName']}"] = group["maxReplicas"]
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory", "nvidia.com/gpu"):
            if (limit := hard.get(f"{kind}.{resource}")) is None:
                continue
            used = [
                size(pod.container["resources"][kind].get(resource, 0)) * number[pod.name]
                for pod in pods().values()
            ]
            autoscaler = cluster()["autoscalerOptions"]["resources"][kind].get(resource, 0)
            assert sum(used) + size(autoscaler) <= size(limit), (kind, resource)
    assert sum(number.values()) <= int(hard["pods"])


# -- who reaches whom --------------------------------------------------------------------------


def test_everything_is_denied_that_is_not_allowed() -> None:
    spec = of_kind("NetworkPolicy")["nobody"]["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", RAY_PODS)
def test_rays_ports_are_open_to_its_own_nodes_and_the_client_s_to_the_runs(
    name: str, other: str
) -> None:
    receiver, sender = pods()[name].labels, pods()[other].labels
    ports = {GCS, CLIENT, DASHBOARD, *ports_of("head"), *ports_of("worker"), 10100, 10999, 44217}
    allowed = {port for port in ports if reaches(sender, receiver, port)}
    assert allowed == ({CLIENT} if (name, other) == ("ray-head", "code") else set())
    for node in RAY_PODS:
        assert all(reaches(pods()[node].labels, receiver, port) for port in ports)
    assert not [peer for port in ports for peer in open_to(receiver, port)]


def test_the_platforms_ports_are_open_to_who_needs_them() -> None:
    wanted = {
        ("proxy", 8080): set(),
        ("webserver", 3000): {"proxy"},
        ("code", 4000): {"daemon", "webserver"},
        ("postgres", 5432): {"code", "daemon", "webserver", "ray-gpu"},
    }
    for (name, port), senders in wanted.items():
        receiver = pods()[name]
        assert port in {p["containerPort"] for p in receiver.container["ports"]}
        found = {pod.name for pod in pods().values() if reaches(pod.labels, receiver.labels, port)}
        assert found == senders, name
    (controller,) = open_to(pods()["proxy"].labels, 8080)
    assert set(controller) == {"namespaceSelector"}
    for name in pods().keys() - {"proxy"}:
        assert not list(open_to(pods()[name].labels, 1)), name


def test_nobody_reaches_the_machines_metadata() -> None:
    for name, policy in of_kind("NetworkPolicy").items():
        for rule in policy["spec"].get("egress", ()):
            blocks = [peer["ipBlock"] for peer in rule.get("to", ()) if "ipBlock" in peer]
            assert all("169.254.0.0/16" in block["except"] for block in blocks), name
            assert rule.get("to") or rule["ports"] == [{"port": 5432}], name


def test_only_the_proxy_is_reached_from_outside() -> None:
    for name, service in of_kind("Service").items():
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", name
        selected = service["spec"]["selector"]
        assert any(selected.items() <= pod.labels.items() for pod in pods().values()), name
    head = cluster()["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert not {"enableIngress", "ingressOptions", "headService"} & head.keys()
    (ingress,) = of_kind("Ingress").values()
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"]["name"] == "proxy"
    hard = of_kind("ResourceQuota")["quota"]["spec"]["hard"]
    assert (hard["services.loadbalancers"], hard["services.nodeports"]) == ("0", "0")


# -- Ray's processes ---------------------------------------------------------------------------


def node(
    *words: str, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """``deploy/ray/node`` with an environment of its own."""
    search = ":".join(filter(None, [str(path or ""), "/usr/bin", "/bin"]))
    return subprocess.run(
        [NODE, *words],
        env={"PATH": search, **variables}, check=False, capture_output=True, text=True,
    )  # fmt: skip


@cache
def options_of(role: str) -> dict[str, str]:
    """What a node of this kind tells ``ray start``: a program `ray` prints it."""
    with tempfile.TemporaryDirectory() as folder:
        ray = Path(folder) / "ray"
        script = '#!/bin/sh\necho "$RAY_AUTH_MODE $GRPC_ENABLE_FORK_SUPPORT $@"\n'
        ray.write_text(script, encoding="utf-8")
        ray.chmod(0o755)
        done = node(role, path=ray.parent, RAY_AUTH_TOKEN="any", FQ_RAY_IP="the-head")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["token", "0", "start"]
    return dict(re.findall(r"--([\w-]+)=?(\S*)", done.stdout))


def ports_of(role: str) -> set[int]:
    return {int(value) for name, value in options_of(role).items() if name.endswith("port")}


def test_a_head_keeps_the_books_and_shows_its_dashboard_to_nobody() -> None:
    head = options_of("head")
    assert (head["num-cpus"], head["num-gpus"]) == ("0", "0")
    # What the autoscaler reads of it.
    group = cluster()["headGroupSpec"]
    assert group["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert (head["dashboard-host"], head["dashboard-port"]) == ("127.0.0.1", str(DASHBOARD))
    assert (head["port"], head["ray-client-server-port"]) == (str(GCS), str(CLIENT))
    container = pods()["ray-head"].container
    assert {p["containerPort"] for p in container["ports"]} <= ports_of("head") - {DASHBOARD}
    assert options_of("worker")["address"] == f"the-head:{GCS}"


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_nodes_options_are_those_of_ray(role: str) -> None:
    pytest.importorskip("ray.scripts.scripts", reason="the extra `cluster` is not installed")
    from ray.scripts.scripts import start

    known = {option.removeprefix("--") for p in start.params for option in p.opts}
    assert options_of(role).keys() <= known
    numbers = [v for name, v in options_of(role).items() if name.endswith("port")]
    assert len(numbers) == len(set(numbers))
    assert "disable-usage-stats" in options_of(role)


def test_no_node_starts_without_a_token_or_a_role() -> None:
    for words, variables, problem in (
        (["head"], {}, "RAY_AUTH_TOKEN is not set"),
        ([], {"RAY_AUTH_TOKEN": "any"}, "usage"),
        (["tail"], {"RAY_AUTH_TOKEN": "any"}, "usage"),
    ):
        done = node(*words, path=None, **variables)
        assert (done.returncode, problem in done.stderr) == (2, True), (words, done.stderr)
    assert cluster()["authOptions"] == {"mode": "token", "secretName": "ray-token"}


def test_every_node_is_started_by_the_one_command() -> None:
    (annotated,) = of_kind("RayCluster").values()
    assert annotated["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
    for name in RAY_PODS:
        pod = pods()[name]
        assert pod.container["command"] == ["/app/deploy/ray/node"]
        assert pod.container["args"][:2] == [pod.labels[NODE_TYPE], "--block"]
        port = int(options_of(pod.labels[NODE_TYPE])["dashboard-agent-listen-port"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert pod.container[probe]["httpGet"] == {"path": "/api/healthz", "port": port}
    for file in UP:
        content = up(file)
        for role in ("head", "worker"):
            stop, start = content[f"{role}_start_ray_commands"]
            assert stop == "ray stop"
            assert start.split()[:2] == ["/app/deploy/ray/node", role]


# -- versions, settings and secrets --------------------------------------------------------------


def test_ray_and_the_images_are_of_the_locked_version() -> None:
    lock = (PROJECT_ROOT / "requirements-cluster.lock").read_text(encoding="utf-8")
    assert re.findall(r"^ray==(\S+)", lock, re.MULTILINE) == [cluster()["rayVersion"]]
    ours = {pod.container["image"] for name, pod in pods().items() if name != "postgres"}
    version = project_version()
    platform = f"instruction-mining-cluster:{version}"
    assert ours == {platform, f"instruction-mining-proxy:{version}"}
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    assert pods()["postgres"].container["image"] == compose["services"]["postgres"]["image"]
    for file in UP:
        assert up(file)["docker"]["image"].endswith(f"/{platform}")
    kustomization = yaml.safe_load((RAY / "kustomization.yaml").read_text(encoding="utf-8"))
    assert {f"{i['name']}:{i['newTag']}" for i in kustomization["images"]} == ours


def test_a_worker_has_room_for_a_group_of_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = deployed(monkeypatch)
    limits = pods()["ray-gpu"].container["resources"]["limits"]
    assert size(limits["cpu"]) >= executor.cpus
    assert size(limits["memory"]) >= executor.memory_gib * 2**30
    assert size(limits["nvidia.com/gpu"]) >= executor.gpus


def deployed(monkeypatch: pytest.MonkeyPatch) -> RayExecutor:
    """The deployment, as a process of the manifests reads it."""
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    deployment = load_deployment()
    assert deployment.files == "s3://mining/files"
    assert isinstance(deployment.executor, RayExecutor)
    return deployment.executor


def test_the_deployment_reads_what_the_manifests_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deployed(monkeypatch).address == f"ray://ray-head-svc:{CLIENT}"
    text = (PROJECT_ROOT / "deployments" / "ray.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) <= settings().keys()
    for name in ("code", "ray-gpu"):
        container = pods()[name].container
        assert container["envFrom"] == [{"configMapRef": {"name": "settings"}}]
        own = {variable["name"] for variable in container["env"]}
        assert {"PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= own
    instance = (RAY / "dagster" / "dagster.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\{env: (\w+)\}", instance)) <= settings().keys()
    services = of_kind("Service")
    for name, port in re.findall(r"@([\w-]+):(\d+)/", " ".join(settings().values())):
        assert int(port) in {p["port"] for p in services[name]["spec"]["ports"]}
    assert settings()["IM_CODE_HOST"] in services


def test_the_trials_profile_is_one_that_a_cluster_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in of_kind("ConfigMap")["profiles"]["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    folder, _, name = settings()["IM_PROFILE"].rpartition("/")
    deployed(monkeypatch)
    assert gpu_of(load_study(str(tmp_path / name))).device == "cuda"
    for pod in ("code", "ray-gpu"):
        mounts = {m["name"]: m["mountPath"] for m in pods()[pod].container["volumeMounts"]}
        assert mounts["profiles"] == folder


def secrets(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """``deploy/ray/secrets``, for one who may sign in."""
    users = tmp_path / "users"
    users.write_text("anna a-hash\n", encoding="utf-8")
    return subprocess.run(
        [RAY / "secrets"],
        env={"PATH": os.environ["PATH"], "IM_USERS": str(users), **variables},
        check=False, capture_output=True, text=True,
    )  # fmt: skip


def test_the_secrets_are_made_that_the_pods_name(tmp_path: Path) -> None:
    key = {"AWS_ACCESS_KEY_ID": "its name", "AWS_SECRET_ACCESS_KEY": 'a: "b"\n$c'}
    done = secrets(tmp_path, **key)
    assert done.returncode == 0, done.stderr
    made = {
        (d["metadata"]["name"], name): base64.b64decode(value).decode()
        for d in yaml.safe_load_all(done.stdout)
        for name, value in d["data"].items()
    }
    assert made["bucket", "AWS_ACCESS_KEY_ID"] == "its name"
    assert made["bucket", "AWS_SECRET_ACCESS_KEY"] == 'a: "b"\n$c'
    assert made["users", "users"] == "anna a-hash"
    assert len(made["postgres", "PGPASSWORD"]) > 30 < len(made["ray-token", "auth_token"])
    assert set(named_secrets()) | {("users", "users"), ("ray-token", "auth_token")} == set(made)
    given = secrets(tmp_path, PGPASSWORD="the managed one's", **key)
    assert base64.b64encode(b"the managed one's").decode() in given.stdout


def named_secrets() -> list[tuple[str, str]]:
    """Every key of a Secret that a container's environment has."""
    return [
        (source["name"], source["key"])
        for pod in pods().values()
        for variable in pod.container.get("env", ())
        if (source := variable.get("valueFrom", {}).get("secretKeyRef"))
    ]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"AWS_ACCESS_KEY_ID": "name"}, "AWS_SECRET_ACCESS_KEY is not set"),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "IM_USERS": "/none"},
            "/none: nobody may sign in yet",
        ),
    ],
)
def test_what_is_missing_for_the_secrets_is_said(
    tmp_path: Path, variables: dict[str, str], problem: str
) -> None:
    done = secrets(tmp_path, **variables)
    assert (done.returncode, done.stdout, problem in done.stderr) == (2, "", True), done.stderr


def test_no_secret_is_written_down() -> None:
    assert not [d for d in documents() if d["kind"] == "Secret"]
    for pod in pods().values():
        for variable in pod.container.get("env", ()):
            if re.search("PASSWORD|KEY|TOKEN|SECRET", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]
    assert not [n for n in settings() if re.search("PASSWORD|KEY|TOKEN|SECRET", n)]


# -- Dagster and the files beside the manifests ----------------------------------------------------


def test_the_instance_is_that_of_compose_without_a_slot_for_the_one_gpu() -> None:
    ours = yaml.safe_load((RAY / "dagster" / "dagster.yaml").read_text(encoding="utf-8"))
    theirs = yaml.safe_load((COMPOSE / "dagster" / "dagster.yaml").read_text(encoding="utf-8"))
    assert ours.pop("compute_logs")["class"] == "BucketComputeLogManager"
    theirs.pop("compute_logs")
    assert theirs["concurrency"]["pools"].pop("default_limit") == 1
    assert "default_limit" not in ours["concurrency"]["pools"]
    runs = [content["concurrency"]["runs"].pop("max_concurrent_runs") for content in (ours, theirs)]
    assert runs[0] > runs[1]
    assert ours == theirs
    for name in ("code", "daemon", "webserver", "proxy"):
        assert of_kind("Deployment")[name]["spec"]["replicas"] == 1


def up(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((RAY / file).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("file", UP)
def test_a_cluster_of_machines_is_as_ray_wants_it_and_closed(file: str) -> None:
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(up(file), json.loads(schema.read_text(encoding="utf-8")))
    options = up(file)["docker"]["run_options"]
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    assert not [o for o in options if o.startswith(("--user=0", "--privileged", "--publish", "-p"))]
    assert [o for o in options if re.fullmatch(r"--user=[1-9]\d*:[1-9]\d*", o)]
    for kind in up(file).get("available_node_types", {}).values():
        assert kind["node_config"]["SecurityGroupIds"]  # or Ray makes one that is open to SSH
        assert up(file)["provider"]["use_internal_ips"] is True


def test_compose_beside_a_cluster_of_machines_changes_what_is_there() -> None:
    content = yaml.safe_load((COMPOSE / "compose.ray.yaml").read_text(encoding="utf-8"))
    base = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    assert content["services"].keys() <= base["services"].keys()
    used = {s["source"] for v in content["services"].values() for s in v.get("secrets", ())}
    assert used == content["secrets"].keys()


def test_the_image_gets_what_a_node_runs() -> None:
    kept = (COMPOSE / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for needed in ("deploy/ray/node", "deploy/ray/dagster", "deployments"):
        assert f"!{needed}" in kept
    assert "!requirements-cluster.lock" in kept
    for script in ("node", "secrets"):
        assert os.access(RAY / script, os.X_OK)
