"""Models in folders: uploaded once, fetched once a machine, the same there."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from im_resources.language_model.loading import ModelError, base_fingerprint, load_base
from im_resources.remote.models import fetch_models, share_models
from im_resources.study import Study, load_study
from tests.remote.proxy import Proxy
from tests.study import write_profile

CPU = torch.device("cpu")


@pytest.fixture
def study(tmp_path: Path, tiny_folder: Path) -> Study:
    model = tmp_path / "driver" / "tiny-model"
    shutil.copytree(tiny_folder, model)
    (model / "manifest.json").write_text("{}")  # one of its own
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    return load_study(str(write_profile(tmp_path, model)))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is on another machine from here on: the folder of its models."""
    folder = tmp_path / "node" / "models"
    monkeypatch.setenv("IM_MODEL_CACHE", str(folder))
    return folder


def test_a_node_has_the_same_model_without_the_drivers_folder(
    url: str, study: Study, tmp_path: Path, node: Path
) -> None:
    base = study.models.needed("base")
    key = base_fingerprint(base, "fp32", CPU)
    shared = share_models(study, url)
    shutil.rmtree(tmp_path / "driver")
    found = fetch_models(Study.model_validate_json(shared.model_dump_json()))
    here = found.models.needed("base")
    assert str(here.path).startswith(str(node))
    assert base_fingerprint(here, "fp32", CPU) == key
    assert load_base(here, "fp32", CPU).fingerprint == key
    assert found.models.embedding == here  # one folder for both
    assert not list(node.rglob("*.bin"))
    rest = found.model_copy(update={"models": study.models})
    assert rest.model_dump() == study.model_dump()


def test_a_gguf_file_is_shared_too(url: str, study: Study, tmp_path: Path, node: Path) -> None:
    path = tmp_path / "driver" / "tiny.gguf"
    path.write_bytes(b"weights")
    base = study.models.needed("base").model_copy(update={"path": str(path)})
    models = study.models.model_copy(update={"base": base, "embedding": None})
    found = fetch_models(share_models(study.model_copy(update={"models": models}), url))
    fetched = Path(str(found.models.needed("base").path))
    assert fetched.name == "tiny.gguf"
    assert fetched.read_bytes() == b"weights"


def test_weights_reach_the_url_once_and_a_node_once(
    s3: str, study: Study, flaky: Proxy, node: Path
) -> None:
    shared = share_models(study, s3)
    assert flaky.count("PUT", ".safetensors") == 1  # of base and embedding, which are the same
    assert share_models(study, s3) == shared
    assert flaky.count("PUT", ".safetensors") == 1
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(fetch_models, [shared] * 3))
    assert flaky.count("GET", ".safetensors") == 1
    # A damaged copy is fetched again.
    (weights,) = Path(str(found[0].models.needed("base").path)).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert fetch_models(shared) == found[0]
    assert flaky.count("GET", ".safetensors") == 2


def test_what_is_not_at_the_url_says_how_it_gets_there(url: str, study: Study, node: Path) -> None:
    shared = share_models(study, url)
    place = str(shared.models.needed("base").path).rpartition("/models/")[0]
    models = shared.models.model_copy(
        update={
            "base": shared.models.needed("base").model_copy(
                update={"path": f"{place}/models/{'0' * 16}"}
            )
        }
    )
    with pytest.raises(ModelError, match=r"no model at .*/models/0000.*where the model is"):
        fetch_models(shared.model_copy(update={"models": models}))
