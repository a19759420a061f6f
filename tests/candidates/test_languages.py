"""The language of an example, by its texts, and how it is shown."""

import json
from itertools import pairwise

import pandas as pd
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from im_assets.candidates.identifying import Identifier
from im_assets.candidates.languages import with_language
from im_resources.study import PROJECT_ROOT

TEXTS = {
    "en": ("Describe spring in a few words.", "Flowers open and the birds come back to the trees."),
    "zh": ("请描述一下春天。", "春天来了，花儿开了，小鸟在树上唱歌。"),
    "ja": ("春について書いてください。", "春になると花が咲き、鳥が木の上で歌います。"),
    "de": ("Beschreibe den Frühling.", "Die Blumen blühen, und die Vögel kommen zurück."),
    "th": ("อธิบายฤดูใบไม้ผลิ", "ดอกไม้บานและนกกลับมาร้องเพลงบนต้นไม้"),
    "ru": ("Опиши весну в нескольких словах.", "Цветы распускаются, и птицы возвращаются."),
    "ar": ("صف الربيع في بضع كلمات.", "تتفتح الأزهار وتعود الطيور إلى الأشجار."),
}


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["instruction", "input", "output"]).assign(source="s")


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_a_language_is_told(code: str) -> None:
    instruction, output = TEXTS[code]
    found = with_language(frame((instruction, "", output))).iloc[0]
    assert found["language"] == code
    assert found["language_confidence"] > 0.5


@pytest.mark.parametrize("texts", [("2 + 2", "", "4"), ("42", "", "17"), ("x", "", "y")])
def test_what_cannot_be_told_is_undetermined_or_no_language(texts: tuple[str, str, str]) -> None:
    assert with_language(frame(texts))["language"].tolist()[0] in ("und", "zxx")


def test_many_at_once_are_told_what_each_alone_is_told() -> None:
    """Against py3langid itself, on real and odd texts, so many that there are several blocks."""
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=0.5)
    model.set_languages([code for code in model.labels if len(code) == 2 or code == "zxx"])
    texts = [text for pair in TEXTS.values() for text in pair]
    texts += ["", " ", "x", "2 + 2 = 4", "ВЕСНА", "\ud800x", "für (i = 0; i < 10)", "🙂"]
    for path in sorted((PROJECT_ROOT / "sample_data").glob("*.jsonl")):
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        texts += [" ".join(map(str, row.values())) for row in rows]
    texts += [a[: len(a) // 2] + b[len(b) // 3 :] for a, b in pairwise(texts)]
    found = list(Identifier(model, digits=2).classify(texts))
    alone = [model.classify(text) for text in texts]
    assert found == [(code, round(sure, 2)) for code, sure in alone]


def test_a_long_listing_does_not_outweigh_what_is_said_around_it() -> None:
    code = "for (int i = 0; i < 10; i++) { total += values[i]; }\n" * 400
    found = with_language(frame((TEXTS["zh"][0] * 6, code, TEXTS["zh"][1] * 20)))
    assert found["language"].tolist() == ["zh"]


def test_languages_are_told_and_nothing_else_changes() -> None:
    rows = frame(*((a, "", b) for a, b in TEXTS.values()))
    rows["source"] = ["a", "a", "a", "b", "b", "b", "b"]
    found = with_language(rows.set_index(rows.index + 10))
    assert found[rows.columns].reset_index(drop=True).equals(rows)
    assert sorted(found["language"][:3]) == ["en", "ja", "zh"]
    assert with_language(rows[:0])["language_confidence"].dtype == "float64"
