"""Work on a cluster that is well: the same numbers, and what fails by itself stays told."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from im_assets.doctor.cluster import cluster as examined
from im_assets.experiments.evaluation import evaluate_base, evaluated
from im_assets.experiments.finetuning import FinetuneError, Trained, finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.cluster.connection import connected
from im_resources.cluster.errors import ClusterError
from im_resources.deployment import DeploymentError
from im_resources.deployment.making import gpu_of
from im_resources.gpu import GpuResource
from im_resources.study import PROJECT_ROOT
from tests.cluster.fixtures import Site, patient
from tests.experiments.small_study import mixtures
from tests.servers import PATIENCE

ROWS = pd.DataFrame(
    {
        "eval_id": ["a", "a", "b"],
        "output_index": [0, 1, 0],
        "instruction": ["What is it?", "What is it?", "Say where."],
        "input": "",
        "output": ["A thing.", "It is some thing or other.", "In Peru, near the river."],
    }
)
HERE = GpuResource(device="cpu", side_by_side=1)


def test_finetunes_and_their_losses_are_those_of_one_machine(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study, steps = site.study("same"), []
    store, gpu = site.store(study), site.gpu(study)
    there = dict(finetune_all(mixtures(), study, gpu, store, lambda *step: steps.append(step)))
    here = dict(finetune_all(mixtures(), study, HERE, AdapterStore(tmp_path)))
    assert {k: t.trial_id for k, t in there.items()} == {k: t.trial_id for k, t in here.items()}
    for key, trained in there.items():
        assert trained.manifest["losses"] == pytest.approx(here[key].manifest["losses"], abs=1e-6)
        assert (key, 4, 4) in [step[:3] for step in steps]  # the last one of each is told
    assert all(trained.now for trained in there.values())
    nodes = {r.message.split()[-1] for r in caplog.records if "is finished on" in r.message}
    assert nodes == {"node-1", "node-2"}
    trials = {key: trained.trial_id for key, trained in there.items()}
    warehouse = site.warehouse(study)
    measured, new = evaluated(trials, ROWS, study, gpu, store, warehouse)
    assert new == set(trials.values())
    own, _ = evaluated(trials, ROWS, study, HERE, AdapterStore(tmp_path),
                       type(warehouse)(tmp_path / "w.duckdb"))  # fmt: skip
    for key, losses in measured.items():
        assert losses["nll"].tolist() == pytest.approx(own[key]["nll"].tolist(), abs=1e-6)
        assert losses["fingerprint"].tolist() == own[key]["fingerprint"].tolist()
    of_base = evaluate_base(ROWS, study, gpu)["nll"].tolist()
    assert of_base == pytest.approx(evaluate_base(ROWS, study, HERE)["nll"].tolist(), abs=1e-6)
    # And again: nothing is sent, nothing is trained.
    assert not any(t.now for _, t in finetune_all(mixtures(), study, gpu, store))


def test_nothing_is_loaded_where_the_work_is_sent_from(site: Site) -> None:
    study = site.study("same")
    for use in (site.gpu(study).base_model, site.gpu(study).embedder):
        with pytest.raises(RuntimeError, match="loaded by the nodes of the cluster alone"):
            use(study)


def test_a_study_moves_between_this_machine_and_a_cluster(site: Site) -> None:
    study = site.study("same")
    there = site.gpu(study)
    assert there.base_fingerprint(study) == HERE.base_fingerprint(study)
    assert there.torch_device() == HERE.torch_device()


def test_a_precision_that_each_node_would_measure_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"base": {"path": str(site.model)}, "embedding": {"path": str(site.model)}}
    study = site.study("measured", models=models | {"precision": "auto"})
    monkeypatch.setenv("IM_DEPLOYMENT", str(site.write_deployment()))
    with pytest.raises(DeploymentError, match="set fp32, bf16, int8 or nf4 in the profile"):
        gpu_of(study)


def test_a_finetune_that_fails_by_itself_is_told_and_the_others_are_kept(site: Site) -> None:
    study = site.study("failing", **patient(fails=2))
    store, done = site.store(study), dict[str, Trained]()
    with pytest.raises(FinetuneError) as error:
        done.update(finetune_all(mixtures(), study, site.gpu(study, group_size=2), store))
    assert sorted(done) == ["seed-000", "seed-001", "seed-003"]
    assert list(error.value.failed) == ["seed-002"]
    assert "these examples cannot be learned" in str(error.value)
    assert len(store.manifests()) == 3


def test_one_that_takes_its_process_down_takes_nothing_else_with_it(site: Site) -> None:
    study = site.study("killing", **patient(kills=1))
    store, done = site.store(study), dict[str, Trained]()
    with pytest.raises(FinetuneError) as error:
        done.update(finetune_all(mixtures(), study, site.gpu(study, group_size=4), store))
    assert sorted(done) == ["seed-000", "seed-002", "seed-003"]
    assert list(error.value.failed) == ["seed-001"]
    assert "was lost" in str(error.value)
    assert "tried 3 times" in str(error.value)


def test_resources_that_no_node_has_are_said_and_not_waited_for_for_ever(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    study = site.study("large")
    gpu = site.gpu(study, cpus=64, wait_minutes=0.1)
    with pytest.raises(ClusterError, match=r"no node of the cluster has 64 CPU after 0\.1 min"):
        list(finetune_all(mixtures(), study, gpu, site.store(study)))
    assert any("waiting for a node with 64 CPU" in r.message for r in caplog.records)


def test_what_is_canceled_ends_on_the_nodes_too(site: Site) -> None:
    study = site.study("canceled", **patient(seconds=300))
    work = finetune_all(mixtures(), study, site.gpu(study), site.store(study))

    def cancel() -> None:
        _until(lambda: _busy(site) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    canceled = threading.Thread(target=cancel)
    canceled.start()
    with pytest.raises(KeyboardInterrupt):
        list(work)
    canceled.join()
    _until(lambda: _busy(site) == 0)


def test_the_work_of_a_process_that_is_killed_ends(site: Site) -> None:
    study = site.study("vanished", **patient(seconds=300))
    driver = _driver(site, study.name)
    try:
        _until(lambda: driver.poll() is not None or _busy(site) == 2)
        assert driver.poll() is None, driver.communicate()
    finally:
        driver.kill()
        driver.wait()
    _until(lambda: _busy(site) == 0)
    # Its claims are free: what it had begun is trained now.
    quick = site.study("vanished", **patient(seconds=0))
    assert len(dict(finetune_all(mixtures(), quick, site.gpu(quick), site.store(quick)))) == 4


def test_two_runs_at_once_train_each_finetune_once(site: Site) -> None:
    study = site.study("twice", **patient(seconds=0.3))

    def train(_: int) -> dict[str, Trained]:
        return dict(finetune_all(mixtures(), study, site.gpu(study), site.store(study)))

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(train, range(2)))
    assert [sorted(done) for done in both] == [sorted(mixtures())] * 2
    assert sum(trained.now for done in both for trained in done.values()) == 4


def test_a_node_whose_disk_is_full_hands_its_work_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    node = site.cluster.add("full", IM_TESTS_FULL="1")
    try:
        study = site.study("disk", **patient(seconds=1))
        done = dict(finetune_all(mixtures(), study, site.gpu(study), site.store(study)))
    finally:
        node.kill()
    assert len(done) == 4
    said = [r.message for r in caplog.records if "full failed (DiskError" in r.message]
    assert said
    assert all("No space left on device" in line and "go elsewhere" in line for line in said)
    lost = {line.split()[1].rstrip(":") for line in said}
    nodes = {r.message.split()[1]: r.message.split()[-1] for r in caplog.records
             if "is finished on" in r.message}  # fmt: skip
    assert {nodes[f"{name}.2"] for name in lost} <= {"node-1", "node-2"}


def test_a_plugin_beside_the_profile_reaches_the_nodes(site: Site) -> None:
    folder = site.folder / "beside"
    folder.mkdir()
    (folder / "quick_lora.py").write_text(
        "from im_assets.experiments.trainers import trainer\n"
        "from im_assets.experiments.trainers.lora import lora\n\n"
        "@trainer('quick_lora', version=1)\ndef quick(job):\n    return lora(job)\n",
        encoding="utf-8",
    )
    settings = patient()["finetuning"] | {"trainer": "quick_lora", "options": {}}
    study = site.study("beside", plugins=["quick_lora"], finetuning=settings)
    done = dict(finetune_all(mixtures(), study, site.gpu(study), site.store(study)))
    assert len(done) == 4


def test_another_version_of_the_project_on_a_node_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("im_assets", "im_resources", "sql", "profiles", "deployments", "tests"):
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    with (tmp_path / "im_assets" / "query.py").open("a") as file:
        file.write("# of another day\n")
    node = site.cluster.add("node-3", PYTHONPATH=str(tmp_path))
    try:
        monkeypatch.setenv("IM_DEPLOYMENT", str(site.write_deployment()))
        study = site.study("versions", **patient(seconds=1))
        levels = {f.what.split()[0]: f for f in examined(study)}
        assert [levels[f"node-{n}"].level for n in (1, 2, 3)] == ["ok", "ok", "error"]
        assert "another version: code" in levels["node-3"].what
        with pytest.raises(
            ClusterError, match=r"node-3 is another version: code .* there, .* here"
        ):
            list(finetune_all(mixtures(), study, site.gpu(study), site.store(study)))
    finally:
        node.kill()
        executor = site.gpu(study).executor
        _until(lambda: len(connected(executor).nodes()) == 3)


def _busy(site: Site) -> int:
    """How many groups are being worked on."""
    return sum("train_trials" in p.name() for node in site.cluster.nodes for p in node.workers())


def _until(there: "object") -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _driver(site: Site, name: str) -> "subprocess.Popen[str]":
    """The finetunes of a study in a process of its own, which tells which it trained."""
    profile = site.folder / name / "profile.yaml"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.driver", str(profile)],
        env={**os.environ, "IM_DEPLOYMENT": str(site.write_deployment())},
        cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
