"""What dies: a node in the middle of a group, the head; what was finished is not done again."""

from typing import Any

import pytest

from im_assets.experiments.finetuning import finetune_all
from im_resources.cluster.errors import ClusterError, ClusterGone
from tests.cluster.fixtures import Site, patient
from tests.experiments.small_study import mixtures


def test_a_node_that_dies_in_a_group_costs_what_it_had_not_finished(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    study = site.study("node", **patient(seconds=1.5))
    store, gpu = site.store(study), site.gpu(study, group_size=2)
    node, done = site.cluster.nodes[2], {}
    killed: list[Any] = []
    for key, trained in finetune_all(mixtures(), study, gpu, store):
        done[key] = trained
        begun = any("begins on node-2" in r.message for r in caplog.records)
        if begun and not killed:  # each of the nodes has finished one of two, or soon
            killed.append(key)
            node.kill()
    assert sorted(done) == sorted(mixtures())
    assert len(killed) == 1
    said = [r.message for r in caplog.records if "was lost" in r.message]
    assert len(said) == 1
    assert "node-2 was lost" in said[0]
    assert "go elsewhere (attempt 2 of 3)" in said[0]
    assert [r.message for r in caplog.records if "1/2.2 is finished on node-1" in r.message
            or "2/2.2 is finished on node-1" in r.message]  # fmt: skip
    # Trained once each: what was finished is found, what was not is begun anew.
    assert len(store.manifests()) == 4
    site.cluster.add("node-2b")


def test_a_head_that_dies_is_one_clear_line_and_the_next_try_goes_on(site: Site) -> None:
    study = site.study("head", **patient(seconds=1.0))
    store, done = site.store(study), {}
    gpu = site.gpu(study)
    work = finetune_all(mixtures(), study, gpu, store)
    first = next(work)
    done[first[0]] = first[1]
    for node in site.cluster.nodes:
        node.kill()
    with pytest.raises(ClusterGone, match=r"is gone .*; . of 4 were finished and are kept: start"):
        done.update(work)
    with pytest.raises(ClusterError, match="nobody answers at ray://"):
        list(finetune_all(mixtures(), study, gpu, store))
    before = set(store.manifests())
    assert before
    site.cluster.start_head()
    site.cluster.add("node-4")
    again = dict(finetune_all(mixtures(), study, site.gpu(study), store))
    assert {key for key, trained in again.items() if not trained.now} == {
        key for key, trained in again.items() if trained.trial_id in before
    }
    assert sorted(again) == sorted(mixtures())
