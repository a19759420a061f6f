"""What is learned of a conversation, token by token."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from im_assets.experiments.finetuning import training_settings_id
from im_resources.language_model.batching import collate
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.losses import output_losses
from im_resources.language_model.prompts import (
    Encoded,
    encode,
    encode_conversation,
    encode_examples,
    replies_of,
)
from im_resources.language_model.template_registry import (
    TEMPLATES,
    Cue,
    TemplateError,
    prompt_template,
)
from im_resources.study import ModelSettings, ModelSource, load_study
from im_resources.study.fingerprints import settings_content
from im_resources.turns import Turn, write_turns
from tests.registries import isolate

KIND = "Be brief, and kind."
SYSTEM = Turn("system", KIND)
TALK = [
    Turn("user", "Add 2 and 3."), Turn("assistant", "Five."), Turn("user", "你好 again?"),
    Turn("assistant", "Still five,\n\nas before."), Turn("user", "Sure?"),
]  # fmt: skip
REPLIES = ["Five.", "Still five,\n\nas before.", "Yes."]
HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n"
)


def models(prompt: str, max_length: int = 400, loss_turns: Any = "all") -> ModelSettings:
    base = ModelSource(path="model")
    return ModelSettings(base=base, embedding=base, prompt=prompt, max_length=max_length,
                         loss_turns=loss_turns)  # fmt: skip


def ids_of(encoded: Encoded) -> list[int]:
    [output] = encoded.outputs
    return [*encoded.prompt, *output]


def labels_of(encoded: Encoded) -> list[int]:
    """The tokens that a batch of it trains on, in their order."""
    return collate([0], [encoded], torch.device("cpu")).target.tolist()


@pytest.mark.parametrize("prompt", ["plain", "alpaca", "chat"])
@pytest.mark.parametrize("turns", [TALK, [SYSTEM, *TALK]], ids=["talk", "system"])
def test_the_labels_are_the_replies_with_what_closes_them_and_nothing_else(
    tokenizer: Any, prompt: str, turns: list[Turn]
) -> None:
    encoded = encode_conversation(tokenizer, models(prompt), turns, "Yes.")
    lead = " " if prompt == "plain" else ""
    closed = [f"{lead}{reply}{tokenizer.eos_token}" for reply in REPLIES]
    assert tokenizer.decode(labels_of(encoded)) == "".join(closed)
    assert [tokenizer.decode(reply) for reply in replies_of(encoded)] == closed


@pytest.mark.parametrize(
    ("prompt", "turns", "expected"),
    [
        (
            "plain",
            [SYSTEM, *TALK[:3]],
            f"{KIND}\n\nQuestion: Add 2 and 3.\nAnswer: Five.<|im_end|>Question: 你好 again?\n"
            "Answer: Yes.<|im_end|>",
        ),
        (
            "alpaca",
            TALK[:3],
            HEAD + "### Instruction:\nAdd 2 and 3.\n\n### Response:\nFive.<|im_end|>"
            "### Instruction:\n你好 again?\n\n### Response:\nYes.<|im_end|>",
        ),
        (
            "alpaca",
            [SYSTEM, TALK[0]],
            f"{KIND}\n\n### Instruction:\nAdd 2 and 3.\n\n### Response:\nYes.<|im_end|>",
        ),
        (
            "plain",
            [TALK[0], Turn("tool", "5"), TALK[1], Turn("tool", "6")],
            "Question: Add 2 and 3.\n5\nAnswer: Five.<|im_end|>Question: 6\nAnswer: Yes.<|im_end|>",
        ),
        (
            "chat",
            [SYSTEM, *TALK[:2], Turn("tool", "6")],
            f"<|im_start|>system\n{KIND}<|im_end|>\n<|im_start|>user\nAdd 2 and 3.<|im_end|>\n"
            "<|im_start|>assistant\nFive.<|im_end|>\n<|im_start|>tool\n6<|im_end|>\n"
            "<|im_start|>assistant\nYes.<|im_end|>",
        ),
    ],
)
def test_a_conversation_reads_like_the_template(
    tokenizer: Any, prompt: str, turns: list[Turn], expected: str
) -> None:
    encoded = encode_conversation(tokenizer, models(prompt), turns, "Yes.")
    assert tokenizer.decode(ids_of(encoded)) == expected
    assert ids_of(encoded) == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_chat_is_what_the_tokenizer_writes_itself(tokenizer: Any) -> None:
    turns = [SYSTEM, *TALK]
    whole = [turn._asdict() for turn in [*turns, Turn("assistant", "Yes.")]]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    encoded = encode_conversation(tokenizer, models("chat"), turns, "Yes.")
    assert tokenizer.decode(ids_of(encoded)) == text.removesuffix("\n")


def test_an_instruction_alone_has_the_tokens_that_it_had(tokenizer: Any) -> None:
    frame = pd.DataFrame(
        {"instruction": ["Add.", "Sure?"], "input": ["2, 3", ""], "output": ["Five.", "Yes."]}
    )
    with_talk = frame.assign(turns=pd.Series([None, write_turns(TALK)], dtype=object))
    for prompt in ("plain", "alpaca", "chat"):
        alone, _ = encode_examples(tokenizer, models(prompt), frame)
        beside, talk = encode_examples(tokenizer, models(prompt), with_talk)
        assert beside == alone == encode(tokenizer, prompt, "Add.", "2, 3", ["Five."], 400)
        assert beside.learned is None
        assert talk.length > alone.length


@pytest.mark.parametrize("prompt", ["plain", "alpaca", "chat"])
def test_the_last_reply_alone_may_be_learned_after_the_same_tokens(
    tokenizer: Any, prompt: str
) -> None:
    every = encode_conversation(tokenizer, models(prompt), TALK, "Yes.")
    last = encode_conversation(tokenizer, models(prompt, loss_turns="last"), TALK, "Yes.")
    assert ids_of(last) == ids_of(every)
    assert labels_of(last) == list([*replies_of(every)][-1])


def test_which_replies_are_learned_is_another_training_only_where_it_was_changed() -> None:
    study = load_study("demo")
    last = study.models.model_copy(update={"loss_turns": "last"})
    assert training_settings_id(study.model_copy(update={"models": last})) != training_settings_id(
        study
    )
    assert "loss_turns" not in settings_content(study.models)


@pytest.mark.parametrize("prompt", ["plain", "alpaca", "chat"])
def test_the_oldest_exchanges_go_first_and_the_system_stays(tokenizer: Any, prompt: str) -> None:
    turns = [SYSTEM, *TALK]
    whole = encode_conversation(tokenizer, models(prompt), turns, "Yes.")
    for left, dropped in ((2, 2), (1, 4)):
        shorter = encode_conversation(tokenizer, models(prompt), [SYSTEM, *TALK[dropped:]], "Yes.")
        cut = encode_conversation(tokenizer, models(prompt, shorter.length), turns, "Yes.")
        assert cut == shorter
        assert len([*replies_of(cut)]) == left
        assert KIND in tokenizer.decode(ids_of(cut))
    assert encode_conversation(tokenizer, models(prompt, whole.length), turns, "Yes.") == whole


@pytest.mark.parametrize("prompt", ["plain", "alpaca", "chat"])
@pytest.mark.parametrize("max_length", [16, 40, 90])
def test_no_conversation_is_longer_than_asked_for(
    tokenizer: Any, prompt: str, max_length: int
) -> None:
    for output in ("Yes.", "yes " * 200):
        turns = [*TALK[:4], Turn("user", "and on " * 100)]
        encoded = encode_conversation(tokenizer, models(prompt, max_length), turns, output)
        assert encoded.length <= max_length
        assert len(encoded.prompt) >= max_length // 2 - 1  # its question keeps half of the room
        lead = " " if prompt == "plain" else ""
        assert (lead + output).startswith(
            tokenizer.decode(labels_of(encoded), skip_special_tokens=True)
        )


def test_an_evaluation_prompt_is_the_conversation_and_its_outputs_share_it(tokenizer: Any) -> None:
    both = encode(tokenizer, "plain", "Sure?", "", ["Yes.", "No."], 400, turns=TALK)
    assert both.learned is None
    assert len(both.outputs) == 2
    text = tokenizer.decode(both.prompt)
    assert text.startswith("Question: Add 2 and 3.")
    assert text.endswith("Question: Sure?\nAnswer:")


def test_the_loss_is_that_of_plain_transformers_with_labels_on_replies(
    tiny_model: LoadedModel, tiny_plain: Any
) -> None:
    encoded = encode_conversation(tiny_model.tokenizer, models("chat"), TALK, "Yes.")
    other = encode(tiny_model.tokenizer, "chat", "Hi", "", ["Hello."], 400)
    ids = torch.tensor([ids_of(encoded)])
    assert encoded.learned is not None
    mask = [False] * len(encoded.prompt) + list(encoded.learned)
    labels = ids.masked_fill(~torch.tensor([mask]), -100)
    with torch.no_grad():
        expected = float(tiny_plain(input_ids=ids, labels=labels).loss) * sum(mask)
    found = output_losses(tiny_model.model, [other, encoded], 10_000)
    assert found.tokens.tolist() == [len(other.outputs[0]), sum(mask)]
    assert found.nll[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.model
def test_a_real_model_finds_a_reply_more_likely_after_its_conversation(
    smol_model: LoadedModel,
) -> None:
    turns = [
        Turn("user", "My cat is called Zanzibar."), Turn("assistant", "A fine name!"),
        Turn("user", "What is my cat called?"),
    ]  # fmt: skip
    whole = encode_conversation(
        smol_model.tokenizer, models("chat", loss_turns="last"), turns, "Zanzibar."
    )
    alone = encode(smol_model.tokenizer, "chat", turns[-1].content, "", ["Zanzibar."], 400)
    losses = output_losses(smol_model.model, [whole, alone], 10_000)
    assert losses.nll[0] < losses.nll[1] - 2


def test_a_template_of_ones_own_writes_each_exchange_or_says_how(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(TEMPLATES, monkeypatch)

    @prompt_template("interview", version=1)
    def interview(instruction: str, context: str) -> tuple[str, str]:
        return f"Q: {instruction}\nA:", " "

    def numbered(turns: list[Turn], tokenizer: Any) -> list[Cue]:
        asked = [turn.content for turn in turns if turn.role == "user"]
        return [Cue(f"{i}. {text}\n", end="\n") for i, text in enumerate(asked, 1)]

    prompt_template("numbered", version=1, turns=numbered)(lambda instruction, context: ("", ""))
    talk = encode_conversation(tokenizer, models("interview"), TALK[:3], "Yes.")
    assert tokenizer.decode(ids_of(talk)).startswith("Q: Add 2 and 3.\nA: Five.<|im_end|>Q: 你好")
    own = encode_conversation(tokenizer, models("numbered"), TALK[:3], "Yes.")
    assert tokenizer.decode(labels_of(own)) == "Five.\nYes.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "refuses the turns user: no system role"),
        ("{% for m in messages[-1:] %}[{{ m.content }}]{% endfor %}", "does not repeat an earlier"),
    ],
)
def test_a_chat_template_that_cannot_write_a_conversation_says_so(
    tiny_folder: Path, template: str, message: str
) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(tiny_folder)
    own.chat_template = template
    with pytest.raises(TemplateError, match=message):
        encode_conversation(own, models("chat"), TALK, "Yes.")


def test_a_reply_is_closed_by_the_templates_own_token(tiny_folder: Path) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(tiny_folder)
    own.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|endoftext|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoded = encode_conversation(own, models("chat"), TALK[:3], "Yes.")
    assert own.decode(labels_of(encoded)) == "Five.<|endoftext|>Yes.<|im_end|>"


def test_the_losses_of_a_batch_are_those_of_each_alone(tiny_model: LoadedModel) -> None:
    items = [
        encode_conversation(tiny_model.tokenizer, models("plain"), TALK[:1], "Yes."),
        encode_conversation(tiny_model.tokenizer, models("plain"), TALK, "Yes."),
        encode(tiny_model.tokenizer, "plain", "Sure?", "", ["Yes.", "No."], 400, turns=TALK),
    ]
    together = output_losses(tiny_model.model, items, 10_000)
    alone = output_losses(tiny_model.model, items, 1)
    np.testing.assert_allclose(together.nll, alone.nll, rtol=1e-5)
