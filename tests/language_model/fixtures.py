"""Models shared by all tests of a session."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from im_resources.language_model.loading import LoadedModel, load_base
from im_resources.study import ModelSource, load_study
from tests.language_model.models import demo_model, plain_model, write_model

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo_model())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> LoadedModel:
    return load_base(ModelSource(path=str(tiny_folder)), "fp32", CPU)


@pytest.fixture(scope="session")
def tiny_plain(tiny_folder: Path) -> Any:
    return plain_model(tiny_folder)


@pytest.fixture(scope="session")
def smol_model() -> LoadedModel:
    return load_base(load_study("demo").models.needed("base"), "fp32", CPU)


@pytest.fixture(scope="session")
def smol_plain() -> Any:
    return plain_model(demo_model())
