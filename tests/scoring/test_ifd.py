"""IFD against two plain transformers losses, one row at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.indicators.ifd import instruction_following_difficulty
from im_assets.scoring.registry import BACKENDS
from im_resources.language_model.prompts import encode
from tests.language_model.models import EXAMPLES, plain_model, plain_nll, write_model
from tests.scoring.small_models import scoring_batch

FRAME = pd.DataFrame(EXAMPLES, columns=["instruction", "input", "output"])
FRAME.insert(0, "example_id", [f"id-{i}" for i in range(len(FRAME))])
LONG = FRAME.assign(output=FRAME["output"] * 60)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def plain(tiny_folder: Path) -> Any:
    return plain_model(tiny_folder)


def batch_of(examples: pd.DataFrame, tmp_path: Path, tiny_folder: Path) -> ScoringBatch:
    return scoring_batch(tmp_path, examples, base=str(tiny_folder))


@pytest.mark.parametrize("examples", [FRAME, LONG], ids=["whole", "cut"])
def test_ifd_is_the_ratio_of_two_losses(
    examples: pd.DataFrame, tmp_path: Path, tiny_folder: Path, plain: Any
) -> None:
    batch = batch_of(examples, tmp_path, tiny_folder)
    tokenizer, models = batch.models.base.tokenizer, batch.models.study.models
    expected = []
    for _, row in examples.iterrows():
        one = encode(
            tokenizer, models.prompt, row.instruction, row.input, [row.output], models.max_length
        )
        [output] = one.outputs
        alone = plain_nll(plain, [tokenizer.bos_token_id], output)
        expected.append(plain_nll(plain, one.prompt, output) / alone)
    np.testing.assert_allclose(instruction_following_difficulty(batch), expected, rtol=2e-4)


def test_an_example_has_the_same_ifd_in_any_batch(tmp_path: Path, tiny_folder: Path) -> None:
    whole = instruction_following_difficulty(batch_of(FRAME, tmp_path, tiny_folder))
    backwards = FRAME.iloc[::-1].reset_index(drop=True)
    again = instruction_following_difficulty(batch_of(backwards, tmp_path, tiny_folder))
    np.testing.assert_allclose(again[::-1], whole, rtol=2e-4)


def test_ifd_reads_the_base_model_so_another_base_scores_anew() -> None:
    assert BACKENDS.all()["ifd"].uses == ("base",)
