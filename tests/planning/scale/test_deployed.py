"""``--plan --deployment``: what is left of a study's plan, in a deployment."""

import json
from pathlib import Path

import pytest

from im_assets.planning.rates import ROW_BYTES
from im_assets.planning.scale.coefficients import coefficients
from im_assets.planning.scale.deployed import CannotTell, deployed, text, totals_of, values
from im_assets.planning.scale.ranges import Range
from im_assets.planning.work import Plan, Work
from im_assets.run import tell_plan
from im_resources.deployment import Deployment, DeploymentError, load_deployment
from im_resources.study import Study, load_study
from tests.language_model.models import write_model
from tests.study import write_profile

CAPACITY = {"gpu": "h100", "gpus": 8, "prices": {"gpu_hour": [2, 3.5], "tb_month": 23}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of a tiny model, of which nothing was run."""
    folder = tmp_path_factory.mktemp("deployed")
    profile = write_profile(folder, write_model(folder / "model"))
    found = load_study(str(profile))
    return found.model_copy(
        update={"models": found.models.model_copy(update={"precision": "auto"})}
    )


def plan(*changes: Work) -> Plan:
    """60 rows and 12 of evaluation read, 8 finetunes of which 4 are upper bounds, 40 scored."""
    works = {
        "eval_set": Work("eval_set", "reading", "rows", 12, 12),
        "candidate_datasets": Work("candidate_datasets", "reading", "rows", 60, 60),
        "example_scores": Work("example_scores", "scoring", "examples", 60, 20, size=40,
                               tokens=800),
        "finetuned_adapters": Work("finetuned_adapters", "training", "finetunes", 4, size=24,
                                   tokens=480),
        "selection_adapters": Work("selection_adapters", "training", "finetunes", 4,
                                   at_most=True, size=24, tokens=480),
        "eval_losses": Work("eval_losses", "evaluating", "evaluations", 4, size=4, tokens=400,
                            disk=4 * 2 * ROW_BYTES * 12),
    }  # fmt: skip
    works |= {work.asset: work for work in changes}
    return Plan("study", tuple(works.values()))


def test_what_is_left_is_counted_and_upper_bounds_begin_at_nothing(study: Study) -> None:
    found = totals_of(plan(), study)
    assert (found.trials, found.scored, found.rows) == (Range(4, 8), Range(40, 40), Range(60, 60))
    assert found.training is not None
    assert [load.tokens for load in found.training] == [480, 960]
    assert found.losses == 12
    assert found.drawn == Range(240, 480)


def test_hours_storage_and_cost_are_told_of_its_machines(study: Study) -> None:
    deployment = Deployment.model_validate({"name": "mine", "capacity": CAPACITY})
    found = deployed(plan(), study, deployment)
    lines = text(found).splitlines()
    assert lines[0] == "in the deployment 'mine', on 8 h100:"
    assert lines[1].split()[-1] == "bf16"
    shown = json.loads(json.dumps(values(found)))
    hours, cost = (shown["figures"][n] for n in ("GPU time together", "cost of GPUs"))
    assert 0 < hours["low"] < hours["high"]
    share = coefficients()["scheduling_share"]  # of the time, which is paid for too
    assert share is not None
    paid = (2 * hours["low"] * (1 + share.low), 3.5 * hours["high"] * (1 + share.high))
    assert (cost["low"], cost["high"]) == pytest.approx(paid)
    done = deployed(Plan("study", ()), study, deployment)
    assert done.needs["GPU time together"] == Range(0, 0)


def test_before_the_data_are_read_it_says_so(study: Study) -> None:
    unread = plan(
        Work("candidate_datasets", "reading", "rows", None),
        Work("example_scores", "scoring", "examples", None, at_most=True),
    )
    deployment = Deployment.model_validate({"name": "mine", "capacity": CAPACITY})
    needs = deployed(unread, study, deployment).needs
    for name in ("scoring", "GPU time together", "cost of GPUs", "cost, of what is priced"):
        assert needs[name] is None
        assert needs.figures[name].why == "not known before the data are read"
    assert needs["finetuning"] is not None


def test_a_deployment_without_capacity_is_told_of_one_gpu(study: Study) -> None:
    found = deployed(plan(), study, load_deployment("this_machine"))
    assert found.capacity.gpus == 1
    assert any("'this_machine' says no `capacity`" in note for note in found.notes)
    assert "cost of GPUs" not in found.needs.figures


def test_a_precision_that_nobody_measured_is_told_as_such(study: Study) -> None:
    models = study.models.model_copy(update={"precision": "fp32"})
    single = study.model_copy(update={"models": models})
    found = text(deployed(plan(), single, load_deployment("this_machine")))
    assert "fp32: not measured" in found
    assert "does not fit" not in found


def test_larger_shards_are_fewer_commits(study: Study) -> None:
    def commits(shard: int) -> Range | None:
        deployment = Deployment.model_validate(
            {
                "name": "ray",
                "executor": {
                    "kind": "ray", "address": "ray://head:10001", "examples_per_shard": shard
                },
            }
        )  # fmt: skip
        return deployed(plan(), study, deployment).needs["catalog commits"]

    assert commits(10) == Range(3 * 4 + 4, 3 * 4 + 3 * 8)
    assert commits(40) == Range(3 + 4, 3 + 3 * 8)


def test_a_base_that_is_not_there_is_named(study: Study, tmp_path: Path) -> None:
    assert study.models.base is not None
    gone = study.models.base.model_copy(update={"path": str(tmp_path / "gone")})
    models = study.models.model_copy(update={"base": gone})
    with pytest.raises(CannotTell, match=r"gone.*of a base by its size"):
        deployed(plan(), study.model_copy(update={"models": models}),
                 load_deployment("this_machine"))  # fmt: skip


@pytest.mark.parametrize(
    ("capacity", "said"),
    [
        ("{gpu: tpu, gpus: 8}", "capacity.gpu"),
        ("{gpu: h100, gpus: 0}", "capacity.gpus"),
        ("{gpu: h100}", "capacity.gpus: Field required"),
        (
            "{gpu: h100, gpus: 8, prices: {gpu_hour: [3, 2]}}",
            "capacity.prices.gpu_hour: expected a price such as 2.5, or from and to",
        ),
        ("{gpu: h100, gpus: 8, prices: {gpu_hour: cheap}}", "capacity.prices.gpu_hour: expected"),
    ],
)
def test_a_wrong_capacity_is_named(tmp_path: Path, capacity: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ncapacity: {capacity}\n", encoding="utf-8")
    with pytest.raises(DeploymentError) as error:
        load_deployment(str(path))
    assert said in str(error.value)


def test_the_command_tells_it_after_the_plan(
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("im_assets.planning.command.plan_now", lambda _: plan())
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ncapacity: {json.dumps(CAPACITY)}\n", encoding="utf-8")
    monkeypatch.delenv("IM_DEPLOYMENT", raising=False)
    assert tell_plan(study, False) == 0
    assert "in the deployment" not in capsys.readouterr().out
    assert tell_plan(study, False, str(path)) == 0
    asked = capsys.readouterr().out
    assert "in the deployment 'mine', on 8 h100:" in asked
    monkeypatch.setenv("IM_DEPLOYMENT", str(path))
    assert tell_plan(study, False) == 0
    assert capsys.readouterr().out == asked
    assert tell_plan(study, True) == 0
    assert json.loads(capsys.readouterr().out)["deployment"]["gpus"] == 8
    with pytest.raises(SystemExit, match="unknown deployment 'rai'"):
        tell_plan(study, False, "rai")


def test_a_full_finetune_keeps_all_weights(study: Study) -> None:
    totals = totals_of(plan(), study)
    whole = study.finetuning.model_copy(update={"trainer": "full"})
    deployment = load_deployment("this_machine")
    lora = deployed(plan(), study, deployment).needs["adapters"]
    full = deployed(plan(), study.model_copy(update={"finetuning": whole}), deployment).needs
    assert lora is not None
    assert full["adapters"] == totals.trials * (4 * totals.model.parameters / 1e12)
    assert full["adapters"].high > lora.high
