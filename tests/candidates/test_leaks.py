"""What leaks an evaluation set, and what is only a phrase that many texts have."""

import random

import pandas as pd
import pytest

from im_assets.candidates.cleaning import clean
from im_assets.candidates.leaks import Leaks
from im_assets.candidates.ngrams import WordHashes
from im_assets.candidates.reading import REJECTED_COLUMNS
from im_resources.study import CleaningSettings

DEFAULTS = CleaningSettings()
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te") for b in ("ban", "dor", "fil", "gup")]
POEM = " ".join(random.Random(0).choices(WORDS, k=40))
CHINESE = (
    "春天来了，花儿开了。小鸟在树上唱歌，孩子们在公园里玩耍，大家都很高兴，因为春天是最美丽的季节。"
)
CODE = """def is_prime(n):
    if n < 2:
        return False
    for k in range(2, int(n ** 0.5) + 1):
        if n % k == 0:
            return False
    return True"""
LOOP = "for (int i = 0; i < n; i++) {"
COUNTING = "1 2 3 4 5 6 7 8"


def evaluation(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(f"e{i}", a, "", b, "held_out", i + 1) for i, (a, b) in enumerate(rows)],
        columns=["eval_id", "instruction", "input", "output", "source", "line"],
    )


def leaking(
    rows: list[tuple[str, str]], held_out: pd.DataFrame, coverage: float = DEFAULTS.leak_coverage
) -> dict[int, str]:
    finder, hashes = Leaks(held_out, DEFAULTS.leak_ngram, coverage), WordHashes()
    found = finder.judge(
        finder.count(
            (number, hashes.of(prompt), hashes.of(output))
            for number, (prompt, output) in enumerate(rows)
        )
    )
    return {number: str(leak) for number, leak in found.items()}


@pytest.mark.parametrize(
    ("text", "word", "another"),
    [(POEM, POEM.split()[20], "another"), (CHINESE, "小鸟", "蝴蝶"), (CODE, "range", "steps")],
    ids=["words", "chinese", "code"],
)
def test_copies_are_found_wherever_they_stand_and_with_a_word_changed(
    text: str, word: str, another: str
) -> None:
    held_out = evaluation(("Tell me about it in your own words, please, and soon.", text))
    rows = [
        ("Go", text),  # the output alone
        (text, "Fine."),  # quoted in a prompt
        ("Go", f"Here it is:\n{text}\nIs that right?"),
        ("Go", text.upper()),
        ("tell me about it, in your own words: please and soon", "No."),  # the prompt alone
        ("Go", text.replace(word, another, 1)),
        ("Go", "Nothing of the kind is said here, by anybody, at any time."),
    ]
    found = leaking(rows, held_out)
    assert set(found) == set(range(6))
    assert "prompt" in found[4]
    assert "reference output" in found[0]


def test_a_chinese_copy_with_one_character_more_in_its_prompt_is_found() -> None:
    held_out = evaluation(("请描述一下春天。", CHINESE))
    assert set(leaking([("请描述一下春天吧。", CHINESE), ("请描述秋天。", "落叶")], held_out)) == {
        0
    }


def test_one_phrase_of_a_long_text_is_no_leak() -> None:
    held_out = evaluation(
        ("Count.", f"{COUNTING} and so on, {POEM}"),
        ("Write a loop.", f"{LOOP} sum += i; }} {POEM[::-1]}"),
        ("Which letters?", f"The quick brown fox jumps over the lazy dog. {POEM}"),
    )
    rows = [
        ("Go on", f"{COUNTING} 9 10"),
        ("Loop", f"{LOOP} print(i); }}"),
        ("Type", "The quick brown fox jumps over the lazy dog."),
    ]
    assert leaking(rows, held_out) == {}


def test_what_many_rows_have_counts_less_and_copies_make_nothing_common() -> None:
    polite = "I am sorry to hear that, what can I do"
    held_out = evaluation(("x", f"{polite} for you today?"))  # 9 of 12 words are the phrase
    rare = leaking([("Go", f"{polite} about it"), ("Go", "No")], held_out)
    assert set(rare) == {0}
    many = [(f"Go {i}", f"{polite} about number {i}") for i in range(300)]
    assert leaking(many, held_out) == {}
    copies = [(f"Go {i}", f"{polite} for you today? {i}") for i in range(300)]
    assert set(leaking(copies, held_out)) == set(range(300))
    assert set(leaking(many + copies, held_out)) == set(range(300, 600))


def test_a_long_run_of_a_much_longer_text_leaks() -> None:
    words = random.Random(1).choices(range(10_000), k=400)
    text = " ".join(f"w{word}" for word in words)
    part, less = " ".join(text.split()[100:160]), " ".join(text.split()[100:140])
    held_out = evaluation(("x", text))
    assert set(leaking([("Go", part), ("Go", less)], held_out)) == {0}


def test_a_short_prompt_leaks_as_a_whole_and_a_short_output_never() -> None:
    held_out = evaluation(("What is a sonnet?", "A poem of fourteen lines"))
    rows = [
        ("what is a sonnet", "x"),
        ("So what is a sonnet?", "y"),
        ("✓", "A poem of fourteen lines"),
        ("", "✓"),
    ]
    assert set(leaking(rows, held_out)) == {0}
    assert leaking([("!", "?")], evaluation(("?!", "…"))) == {}


def test_the_reason_names_phrase_row_line_and_share() -> None:
    held_out = evaluation(("x", "y"), ("Say it.", POEM))
    [reason] = leaking([("Go", POEM)], held_out).values()
    phrase = " ".join(POEM.split()[:12])
    assert reason == (
        f"leaks evaluation row e1, held_out line 2: has 100% of its reference output, '{phrase} …'"
    )


def test_the_share_is_a_setting_of_the_cleaning() -> None:
    half = " ".join(POEM.split()[:20])
    rows = pd.DataFrame(
        {"source": "s", "line": [1], "instruction": "Go", "input": "", "output": half,
         "category": ""}
    )  # fmt: skip
    nothing = pd.DataFrame(columns=REJECTED_COLUMNS)
    for coverage, kinds in ((0.4, ["leaks"]), (0.6, [])):
        settings = CleaningSettings(leak_coverage=coverage)
        _, out = clean(rows, nothing, settings, evaluation(("Say it.", POEM)))
        assert out["kind"].tolist() == kinds


def test_the_order_of_the_rows_changes_nothing() -> None:
    held_out = evaluation(("x", POEM), ("Say something about the weather of today, please.", CODE))
    rows = [("Go", POEM), ("Go", " ".join(POEM.split()[:25])), ("Go", CODE), ("Go", "No.")]
    forwards = leaking(rows, held_out)
    backwards = leaking(rows[::-1], held_out)
    assert forwards == {3 - number: reason for number, reason in backwards.items()}
