"""How work is cut into groups, whose fault an error is, and what is said of it; no cluster."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.doctor.cluster import cluster
from im_resources.cluster.errors import NodeFault, of_the_node
from im_resources.cluster.groups import EACH_SLOT, MOST, grouped, sharded
from im_resources.cluster.versions import differences, versions
from tests.servers import free_ports


@given(st.integers(0, 3000), st.integers(0, 70), st.integers(0, 40))
def test_groups_hold_every_item_once_in_order(number: int, slots: int, size: int) -> None:
    keys = [str(k) for k in range(number)]
    groups = grouped(keys, slots, size)
    assert [key for group in groups for key in group] == keys
    sizes = [len(group) for group in groups]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(s <= (size or MOST) for s in sizes)


def test_every_slot_has_a_few_groups() -> None:
    groups = grouped([str(k) for k in range(1000)], 64)
    assert 64 * (EACH_SLOT - 1) < len(groups) <= 64 * EACH_SLOT
    assert len(grouped(["a", "b"], 64)) == 2


@given(st.lists(st.integers(1, 400)), st.integers(1, 1000))
def test_shards_are_as_large_as_they_may_be(weights: list[int], most: int) -> None:
    items = {str(k): weight for k, weight in enumerate(weights)}
    shards = sharded(items, most)
    assert [key for shard in shards for key in shard] == list(items)
    sums = [sum(items[key] for key in shard) for shard in shards]
    assert all(s <= most or len(shard) == 1 for s, shard in zip(sums, shards, strict=True))
    after = zip(sums, (items[shard[0]] for shard in shards[1:]), strict=False)
    assert all(s + first > most for s, first in after)


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (ConnectionResetError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (NodeFault("models.base has other weights on this node"), True),
        (ValueError("these examples cannot be learned"), False),
        (MemoryError("finetuning seed-000"), False),
    ],
)
def test_a_node_is_blamed_for_what_another_may_do_better(error: Exception, whose: bool) -> None:
    assert of_the_node(error) is whose
    wrapped = RuntimeError("while finetuning")
    wrapped.__cause__ = error
    assert of_the_node(wrapped) is whose


def test_a_difference_of_versions_names_both() -> None:
    other = versions() | {"torch": "1.0"}
    assert differences(versions(), versions()) == ""
    assert differences(versions(), other) == f"torch 1.0 there, {versions()['torch']} here"


def test_the_doctor_says_that_nobody_answers_and_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, [port] = tmp_path_factory.mktemp("doctor"), free_ports(1)
    path = folder / "cluster.yaml"
    path.write_text(
        f"name: c\nexecutor: {{kind: ray, address: 'ray://127.0.0.1:{port}', device: cpu, gpus: 0}}"
        f"\nwarehouse: {{kind: ducklake, catalog: 'postgresql://im@h/im', data: {folder}}}\n"
        f"files: {folder}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("IM_DEPLOYMENT", str(path))
    [finding] = cluster(None)
    assert finding.level == "error"
    assert finding.what.startswith(f"nobody answers at ray://127.0.0.1:{port}")
    assert finding.remedy.startswith("start the cluster's head, or correct")
    monkeypatch.delenv("IM_DEPLOYMENT")
    assert list(cluster(None)) == []
