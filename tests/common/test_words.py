"""Words of scripts with and without blanks, and that English is left as it was."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icu4py import icu_version

from im_assets.common.words import segmented, words_of

CLAUSES = {
    "chinese": "春天来了，花儿开了。小鸟在树上唱歌，孩子们在公园里玩耍，大家都很高兴。",
    "japanese": "春になると花が咲きます。子供たちは公園で遊び、鳥は木の上で歌います。",
    "thai": "ฤดูใบไม้ผลิมาถึงแล้ว ดอกไม้บานและเด็กๆเล่นอยู่ในสวน",
    "khmer": "ភាសាខ្មែរជាភាសារបស់ប្រជាជនកម្ពុជា",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我喜欢学习。", ["我", "喜欢", "学习"]),
        ("次の文章を要約。", ["次", "の", "文章", "を", "要約"]),
        ("กรุณาเขียนบทกวี", ["กรุณา", "เขียน", "บท", "กวี"]),
        ("用Python写😀一首诗𠀋", ["用", "python", "写", "一首", "诗", "𠀋"]),
        ("다음 문장을", ["다음", "문장을"]),  # Korean has blanks
        ("कविता लिखिए", ["कविता", "लिखिए"]),  # vowel signs are inside words
        ("a[i] += snake_case(10.5); don't", ["a", "i", "snake_case", "10", "5", "don", "t"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize("name", sorted(CLAUSES))
def test_a_clause_without_blanks_is_many_words(name: str) -> None:
    words = words_of(CLAUSES[name])
    assert len(words) > 3 * len(CLAUSES[name].split())
    assert "".join(words) == re.sub(r"[\s，。、]", "", CLAUSES[name])


@given(st.text(alphabet=st.characters(max_codepoint=0x24F), max_size=60))
def test_other_scripts_keep_their_tokens(text: str) -> None:
    assert segmented(text, text.split()) == text.split()


def test_the_dictionaries_are_those_that_mtld_was_scored_with() -> None:
    """A newer ICU may cut other words: then mtld's version has to rise with the pin."""
    assert icu_version == "78.3"
