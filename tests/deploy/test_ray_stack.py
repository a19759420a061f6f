"""The pods of a cluster, as processes: who gets in, and a study from mixtures to a selection."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from im_resources.deployment.making import warehouse_of
from im_resources.study import load_study
from tests.deploy.ray_stack import (
    TOKEN,
    ClusterUI,
    RayStack,
    answer_of,
    missing,
    ray_deployment,
)
from tests.deploy.stack import JSON, PASSWORD
from tests.language_model.models import write_model
from tests.servers import PASSWORD as DATABASE
from tests.study import write_profile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
SEEDS = [f"seed-{number:03d}" for number in range(8)]
VERSION = b'{"query": "{ version }"}'


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return write_profile(folder, write_model(folder / "model"))


@pytest.fixture(scope="module")
def stack(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayStack]:
    with ray_deployment(tmp_path_factory.mktemp("cluster"), profile) as running:
        yield running


@pytest.fixture(scope="module")
def ui(stack: RayStack) -> ClusterUI:
    return ClusterUI(stack)


@pytest.fixture(scope="module")
def run(ui: ClusterUI) -> str:
    """A finished run of the whole study: a backfill over more groups than the cluster has slots."""
    assert ui.finished(ui.launch_job("data")) == "SUCCESS"
    [run] = ui.backfill_job("study", SEEDS)
    assert ui.finished(run) == "SUCCESS"
    return run


def test_nobody_gets_in_without_the_password(stack: RayStack) -> None:
    assert stack.request(user=None)[0] == 401
    assert stack.request("/graphql", VERSION, JSON, user=None)[0] == 401
    assert stack.request("/graphql", VERSION, {"Origin": stack.site, **JSON})[0] == 200
    foreign = {"Origin": "https://evil.example", **JSON}
    assert stack.request("/graphql", VERSION, foreign)[0] == 403


@pytest.mark.parametrize("path", ["/", "/api/jobs/", "/api/cluster_status", "/nodes?view=summary"])
def test_ray_answers_nobody_who_has_no_token(stack: RayStack, path: str) -> None:
    dashboard = f"http://127.0.0.1:{stack.ports['dashboard']}"
    submit = b'{"entrypoint": "true"}'
    assert answer_of(dashboard + "/api/jobs/", submit, JSON)[0] == 401
    if path != "/":  # the page itself, which has nothing in it
        assert answer_of(dashboard + path)[0] == 401
        assert answer_of(dashboard + path, headers={"Authorization": "Bearer guess"})[0] == 403
    assert answer_of(dashboard + path, headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_a_study_is_done_by_the_workers(
    stack: RayStack, ui: ClusterUI, run: str, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stack.as_code(monkeypatch):
        tables = warehouse_of(load_study(str(profile)))
        assert tables.is_lake
        assert len(tables.read_table("finetuned_adapters")) == len(SEEDS)
        assert tables.read_table("quality_rule")["n"].iloc[0] == len(SEEDS)
        assert len(tables.read_table("dolly_selection")) == 6
    told = " ".join(event.get("message", "") for event in ui.events(run))
    assert set(re.findall(r"is finished on (\S+)", told)) == {"ray-gpu-1", "ray-gpu-2"}
    begun = set(re.findall(r"train_trials: 8 items in (\d+) groups for 2 slots", told))
    assert all(int(groups) > 2 for groups in begun)
    assert begun


def test_the_webserver_shows_what_a_run_printed_elsewhere(
    stack: RayStack, ui: ClusterUI, run: str
) -> None:
    assert "is finished on ray-gpu-1" in ui.output(run)
    # It came by way of the bucket.
    assert (stack.folder / "volumes/webserver/var/lib/dagster").joinpath(run).is_dir()


def test_secrets_are_kept_nowhere(stack: RayStack, run: str) -> None:
    files = [p for p in stack.folder.rglob("*") if p.is_file()]
    assert files
    for path in [*files, *(p for p in stack.short.rglob("*") if p.is_file())]:
        content = path.read_bytes()
        for secret in (PASSWORD, DATABASE, TOKEN, stack.bucket["AWS_SECRET_ACCESS_KEY"]):
            assert secret.encode() not in content, (path, secret)
