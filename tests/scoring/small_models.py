"""Small models of the real formats with random weights, and batches that are scored with them."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from im_assets.scoring.batch import Models, ScoringBatch
from im_resources.gpu import GpuResource
from im_resources.study import load_study

EXAMPLES = pd.DataFrame(
    {
        "example_id": list("abcde"),
        "instruction": [
            "Name a colour of the sky.",
            "Add the numbers.",
            "Why do leaves fall in autumn, and what does the tree gain by it?",
            "Greet me.",
            "Say nothing.",
        ],
        "input": ["", "2 and 3", "", "", ""],
        "output": [
            "Blue.",
            "They make five.",
            "A tree drops its leaves to save water while the ground is frozen. It keeps what it "
            "needs for the next spring in its wood, and lets the rest go.",
            "Hello, naïve friend — 你好!",
            "",
        ],
    }
)


def scoring_batch(
    folder: Path, examples: pd.DataFrame = EXAMPLES, tokens_per_batch: int = 128, **sources: str
) -> ScoringBatch:
    """A batch of a study on the CPU whose ``models.<kind>`` are the given folders."""
    data = {"path": "unused.jsonl"}
    profile = folder / "profile.yaml"
    content: dict[str, Any] = {
        "name": "small",
        "data": {"candidates": {"one": data}, "unseen": data, "evaluation": data},
        "models": {"base": data, "embedding": data, "precision": "fp32"}
        | {k: {"path": p} for k, p in sources.items()},
        "scoring": {"indicators": {"mtld": "mtld"}, "tokens_per_batch": tokens_per_batch},
    }
    profile.write_text(yaml.safe_dump(content), encoding="utf-8")
    study = load_study(str(profile))
    return ScoringBatch(
        examples, Models.of(study, GpuResource(device="cpu", memory_fraction=0.95, side_by_side=1))
    )


def byte_tokenizer(folder: Path, specials: list[str], **named: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as of GPT-NeoX, saved in the folder."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        EXAMPLES["output"],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return _saved(core, folder, **named)


def closed_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer that closes every text with </s>, as T5's does, and knows Yes and No as words."""
    specials = ["<pad>", "</s>", "<unk>"]
    words = {word: i for i, word in enumerate([*specials, "Yes", "No"])}
    letters = {chr(c): len(words) + i for i, c in enumerate(range(33, 127))}
    core = Tokenizer(models.WordLevel(words | letters, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("Yes|No|."), "isolated")
    core.add_special_tokens(specials)
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return _saved(core, folder, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def pair_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of segment pairs, as BERT's."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = {word: i for i, word in enumerate([*specials, *map(chr, range(33, 127))])}
    core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.add_special_tokens(specials)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return _saved(core, folder, **named, cls_token="[CLS]", model_input_names=inputs)


def _saved(core: Tokenizer, folder: Path, **named: Any) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.save_pretrained(folder)
    return tokenizer
