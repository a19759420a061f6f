from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_resources.language_model.prompts import encode

TEMPLATES = ["plain", "alpaca", "chat"]
CUES = {
    "plain": "Answer:",
    "alpaca": "### Response:\n",
    "chat": "<|im_end|>\n<|im_start|>assistant\n",
}
few = settings(max_examples=60, deadline=None)
TEXT = st.text(max_size=200) | st.sampled_from(["word " * 300, "naïve — 你好 " * 40])
OUTPUTS = st.lists(TEXT, min_size=1, max_size=4)


@few
@given(
    template=st.sampled_from(TEMPLATES),
    instruction=TEXT,
    context=TEXT,
    outputs=OUTPUTS,
    max_length=st.integers(16, 120),
    max_output_tokens=st.none() | st.integers(1, 40),
)
def test_nothing_is_longer_than_asked_for_and_the_response_cue_survives(
    tokenizer: Any,
    template: str,
    instruction: str,
    context: str,
    outputs: list[str],
    max_length: int,
    max_output_tokens: int | None,
) -> None:
    encoded = encode(
        tokenizer, template, instruction, context, outputs, max_length, max_output_tokens
    )
    assert len(encoded.outputs) == len(outputs)
    for output in encoded.outputs:
        assert 0 < len(output) <= (max_output_tokens or max_length)
        assert len(encoded.prompt) + len(output) <= max_length
    assert tokenizer.decode(encoded.prompt).endswith(CUES[template])


@few
@given(
    template=st.sampled_from(TEMPLATES),
    outputs=OUTPUTS,
    max_length=st.integers(16, 400),
    max_output_tokens=st.none() | st.integers(1, 40),
)
def test_the_response_is_a_beginning_of_the_text_and_only_a_whole_one_ends_it(
    tokenizer: Any,
    template: str,
    outputs: list[str],
    max_length: int,
    max_output_tokens: int | None,
) -> None:
    encoded = encode(tokenizer, template, "Go.", "", outputs, max_length, max_output_tokens)
    lead = " " if template == "plain" else ""
    for text, ids in zip(outputs, encoded.outputs, strict=True):
        whole = [*tokenizer(lead + text)["input_ids"], tokenizer.eos_token_id]
        assert list(ids) == whole[: len(ids)]
        assert (ids[-1] == tokenizer.eos_token_id) == (len(ids) == len(whole))


@few
@given(template=st.sampled_from(TEMPLATES), words=st.integers(200, 400), cut=st.integers(24, 120))
def test_a_long_prompt_loses_its_middle_before_a_response_loses_anything(
    tokenizer: Any, template: str, words: int, cut: int
) -> None:
    def of(question: str, output: str, length: int) -> tuple[list[int], str]:
        encoded = encode(tokenizer, template, question, "", [output], length)
        return list(encoded.prompt), tokenizer.decode(encoded.outputs[0], skip_special_tokens=True)

    question = "Begin here " + "and on " * words
    whole, _ = of(question, "Yes.", 10_000)
    prompt, answer = of(question, "Yes.", cut)
    assert answer.strip() == "Yes."
    head = next(k for k, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b)
    assert head >= cut // 2 - 16
    assert prompt[head:] == whole[-len(prompt[head:]) :]
    # Against a long response the prompt keeps half of the room, and the response gets the rest.
    assert len(of(question, "yes " * 500, cut)[0]) == cut // 2


@pytest.mark.parametrize(
    ("template", "context", "expected"),
    [
        ("plain", "", "Question: Add them.\nAnswer: Five.<|im_end|>"),
        ("plain", "2 and 3", "Question: Add them.\n2 and 3\nAnswer: Five.<|im_end|>"),
        (
            "alpaca",
            "",
            "Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\nAdd them.\n\n### Response:\n"
            "Five.<|im_end|>",
        ),
        (
            "alpaca",
            "2 and 3",
            "Below is an instruction that describes a task, paired with an input that provides "
            "further context. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nAdd them.\n\n### Input:\n2 and 3\n\n### Response:\nFive.<|im_end|>",
        ),
        (
            "chat",
            "2 and 3",
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n<|im_start|>user\nAdd them.\n\n2 and 3<|im_end|>\n"
            "<|im_start|>assistant\nFive.<|im_end|>",
        ),
    ],
)
def test_what_is_trained_on_reads_like_the_template(
    tokenizer: Any, template: str, context: str, expected: str
) -> None:
    encoded = encode(tokenizer, template, "Add them.", context, ["Five."], 200)
    ids = [*encoded.prompt, *encoded.outputs[0]]
    assert tokenizer.decode(ids) == expected
    # The cut between prompt and response falls where the tokenizer puts one anyway: at generation
    # time the model meets the same prompt tokens, and the response is tokenized as in running text.
    assert ids == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_all_responses_of_an_instruction_share_one_prompt(tokenizer: Any) -> None:
    short = encode(tokenizer, "plain", "word " * 100, "", ["Yes."], 64)
    both = encode(tokenizer, "plain", "word " * 100, "", ["Yes.", "No, " * 100], 64)
    assert len(both.prompt) == 32 < len(short.prompt)  # the longest response decides
    assert both.outputs[0] == short.outputs[0]
    assert both.length == len(both.prompt) + sum(map(len, both.outputs))


def test_an_unknown_template_names_the_known_ones(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"models\.prompt: .*'vicuna'.*alpaca, chat, plain"):
        encode(tokenizer, "vicuna", "Hi", "", ["Hello"], 64)
