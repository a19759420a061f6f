"""What is cut is counted: by hand for single rows, and against the uncut tokens for any."""

from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from im_resources.language_model.cuts import counted
from im_resources.language_model.prompts import Encoded, encode, encode_examples, replies_of
from im_resources.study import ModelSettings, load_study
from im_resources.turns import Turn, write_turns

TALK = [
    Turn("system", "Be brief."),
    Turn("user", "Where is Peru? " * 4),
    Turn("assistant", "In the south of America, by the sea."),
    Turn("user", "And Nepal?"),
    Turn("assistant", "In Asia."),
    Turn("user", "And Chile?"),
]
ROWS = pd.DataFrame(
    {
        "instruction": ["Hi?", "Tell me all.", "word " * 100, "And Chile?"],
        "input": "",
        "output": ["Hello.", "and on " * 100, "Yes.", "West of Argentina."],
        "turns": [None, None, None, write_turns(TALK)],
    }
)


def models(**changes: Any) -> ModelSettings:
    return load_study("demo").models.model_copy(update=changes)


def row(tokenizer: Any, number: int, **changes: Any) -> dict[str, int]:
    encoded = encode_examples(tokenizer, models(**changes), ROWS.iloc[[number]])
    return {str(name): int(value) for name, value in counted(encoded).iloc[0].items() if value}


def test_what_fits_loses_nothing(tokenizer: Any) -> None:
    tokens = len(tokenizer(" Hello.")["input_ids"]) + 1
    prompt = len(tokenizer("Question: Hi?.\nAnswer:")["input_ids"])
    whole = {"instructions": 1, "responses": 1, "response_tokens": tokens}
    whole["tokens"] = prompt + tokens
    assert row(tokenizer, 0, max_length=64) == whole


def test_a_long_response_loses_its_end(tokenizer: Any) -> None:
    found = row(tokenizer, 1, max_length=64)
    tokens = len(tokenizer(" " + "and on " * 100)["input_ids"]) + 1
    prompt = len(tokenizer("Question: Tell me all.\nAnswer:")["input_ids"])
    assert found == {
        "instructions": 1,
        "responses": 1,
        "responses_cut": 1,
        "response_tokens": tokens,
        "response_tokens_cut": tokens - (64 - prompt),
        "tokens": 64,
    }


def test_a_long_prompt_loses_its_middle_and_the_response_nothing(tokenizer: Any) -> None:
    found = row(tokenizer, 2, max_length=64)
    assert (found["prompts_cut"], found["responses"]) == (1, 1)
    assert "responses_cut" not in found


def test_turns_that_are_left_out_take_their_replies_with_them(tokenizer: Any) -> None:
    whole = row(tokenizer, 3, max_length=400)
    assert whole["responses"] == 3
    assert "turns_left_out" not in whole
    cut = row(tokenizer, 3, max_length=60)
    assert (cut["turns_left_out"], cut["prompts_cut"]) == (2, 1)
    assert (cut["responses"], cut["responses_cut"], cut["responses_left_out"]) == (3, 1, 1)
    assert cut["response_tokens"] == whole["response_tokens"]
    first = len(tokenizer(" In the south of America, by the sea.")["input_ids"]) + 1
    assert cut["response_tokens_cut"] == first
    # Where the loss is over the last reply only, a turn that is left out is no reply lost.
    last = row(tokenizer, 3, max_length=60, loss_turns="last")
    assert (last["turns_left_out"], last["responses"]) == (2, 1)
    assert "responses_cut" not in last


def test_the_bound_on_an_output_cuts_too(tokenizer: Any) -> None:
    encoded = encode(tokenizer, "plain", "Hi?", "", ["Hello.", "and on " * 20], 64, 8)
    found = counted([encoded]).iloc[0]
    assert (found["instructions"], found["responses"], found["responses_cut"]) == (1, 2, 1)
    assert found["response_tokens"] - found["response_tokens_cut"] == sum(map(len, encoded.outputs))


TEXT = st.text(max_size=60) | st.sampled_from(["word " * 60, "你好 " * 30])


@settings(max_examples=60, deadline=None)
@given(
    talk=st.lists(st.tuples(TEXT, TEXT), max_size=4),
    last=TEXT,
    output=TEXT,
    max_length=st.integers(16, 120),
    loss_turns=st.sampled_from(["all", "last"]),
    prompt=st.sampled_from(["plain", "chat"]),
)
def test_kept_and_lost_are_the_whole(
    tokenizer: Any,
    talk: list[tuple[str, str]],
    last: str,
    output: str,
    max_length: int,
    loss_turns: str,
    prompt: str,
) -> None:
    said = [t for asked, reply in talk for t in (Turn("user", asked), Turn("assistant", reply))]
    frame = pd.DataFrame(
        {
            "instruction": [last],
            "input": "",
            "output": [output],
            "turns": [write_turns([*said, Turn("user", last)])],
        }
    )

    def encoded(length: int) -> Encoded:
        settings = models(max_length=length, loss_turns=loss_turns, prompt=prompt)
        return encode_examples(tokenizer, settings, frame)[0]

    whole, cut = encoded(10_000), encoded(max_length)
    before, after = counted([whole]).iloc[0], counted([cut]).iloc[0]
    for name in ("responses", "response_tokens"):
        assert before[name] == after[name]
    assert before["responses_cut"] == before["prompts_cut"] == before["turns_left_out"] == 0
    kept = sum(map(len, replies_of(cut)))
    assert after["response_tokens_cut"] == before["response_tokens"] - kept
    assert whole.length - cut.length == cut.lost.prompt + sum(cut.lost.outputs)
    assert (before["tokens"], after["tokens"]) == (whole.length, cut.length)
    assert (after["responses_cut"] > 0) == (after["response_tokens_cut"] > 0)
    assert after["responses_left_out"] == len(list(replies_of(whole))) - len(list(replies_of(cut)))


def test_of_no_instruction_there_is_no_count() -> None:
    assert counted([]).sum().sum() == 0
