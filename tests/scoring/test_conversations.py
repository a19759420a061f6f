"""Which text of a conversation each indicator reads, told apart by what changes its value."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.indicators.ifd import instruction_following_difficulty
from im_assets.scoring.indicators.length import instruction_length, response_length
from im_assets.scoring.indicators.mtld import mtld, text_mtld
from im_assets.scoring.indicators.perplexity import perplexity
from im_assets.scoring.registry import BACKENDS
from im_resources.language_model.losses import output_losses
from im_resources.language_model.prompts import Encoded, encode_conversation, replies_of
from im_resources.turns import Turn, write_turns
from tests.language_model.models import write_model
from tests.scoring.small_models import EXAMPLES, scoring_batch

TALK = [
    Turn("system", "Be brief."), Turn("user", "Where is it?"), Turn("assistant", "In the north."),
    Turn("tool", "9 degrees"), Turn("assistant", "It is cold there."), Turn("user", "Greet me."),
]  # fmt: skip
MIXED = EXAMPLES.iloc[[0, 3]].assign(turns=pd.Series([None, write_turns(TALK)], [0, 3]))


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def batch(tmp_path: Path, tiny_folder: Path) -> ScoringBatch:
    return scoring_batch(tmp_path, MIXED.reset_index(drop=True), base=str(tiny_folder))


def test_lengths_and_diversity_are_of_all_turns(batch: ScoringBatch) -> None:
    tokenizer = batch.models.base.tokenizer
    others = "Be brief.\n\nWhere is it?\n\n9 degrees\n\nGreet me."
    replies = "In the north.\n\nIt is cold there.\n\nHello, naïve friend — 你好!"
    assert batch.prompts[1] == "Greet me."  # the last exchange
    assert instruction_length(batch)[1] == len(tokenizer(others)["input_ids"])
    assert response_length(batch)[1] == len(tokenizer(replies)["input_ids"])
    assert mtld(batch)[1] == text_mtld(replies)


def test_perplexity_and_ifd_are_over_every_reply(batch: ScoringBatch) -> None:
    base, models = batch.models.base, batch.models.study.models
    output = batch.examples["output"][1]
    encoded = encode_conversation(base.tokenizer, models, TALK, output)
    given = output_losses(base.replica(), [encoded], 10_000)
    assert perplexity(batch)[1] == pytest.approx(np.exp(given.nll / given.tokens)[0], rel=1e-5)
    begin = (base.tokenizer.bos_token_id,)
    apart = [Encoded(begin, (reply,)) for reply in replies_of(encoded)]
    assert len(apart) == 3
    alone = output_losses(base.replica(), apart, 10_000)
    assert alone.tokens.sum() == given.tokens[0]
    ratio = given.nll[0] / alone.nll.sum()
    assert instruction_following_difficulty(batch)[1] == pytest.approx(ratio, rel=1e-4)


def test_an_instruction_alone_scores_beside_a_conversation_what_it_scores_without(
    batch: ScoringBatch, tmp_path: Path, tiny_folder: Path
) -> None:
    alone = scoring_batch(tmp_path, EXAMPLES.iloc[[0]], base=str(tiny_folder))
    for score in (instruction_length, response_length, mtld):
        assert score(batch)[0] == score(alone)[0]
    for measure in (perplexity, instruction_following_difficulty):
        assert measure(batch)[0] == pytest.approx(measure(alone)[0], rel=1e-4)


def test_every_backend_says_which_text_it_reads() -> None:
    whole = {name for name, found in BACKENDS.all().items() if found.text == "conversation"}
    assert whole == {
        "instruction_length", "response_length", "mtld", "perplexity", "ifd",
        "naturalness_proxy", "coherence_proxy", "understandability_proxy", "judge_rating",
    }  # fmt: skip
