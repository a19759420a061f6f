"""The words of a text in any language: one notion for lexical diversity, leaks and duplicates.

Most scripts part words by blanks and punctuation. Chinese, Japanese, Thai, Lao, Khmer and Burmese
do not: there a whole clause would count as one word. What holds such signs is cut by ICU's word
break iterator, which knows these languages' words from dictionaries (Unicode Standard Annex 29,
https://www.unicode.org/reports/tr29/#Word_Boundaries; ICU user guide, Boundary Analysis). Text of
other scripts is left as it was found, so that English words are what they are elsewhere.
"""

from collections.abc import Iterable

import regex
from icu4py.breakers import WordBreaker

# Unlike the standard library's, this \w has combining marks: vowel signs of Hindi are inside words.
_WORD = regex.compile(r"\w+")
# Line_Break=SA: "complex context dependent", the scripts of South-East Asia that take a dictionary.
_WITHOUT_BLANKS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]")


def words_of(text: str) -> list[str]:
    """The words of a text: runs of letters, marks, digits and underscores, lower-cased."""
    return segmented(text, _WORD.findall(text.lower()))


def segmented(text: str, tokens: Iterable[str]) -> list[str]:
    """The tokens, those in a script without blanks cut into words and rid of their punctuation.

    Args:
        text: what the tokens are of; most texts have no such script, and it is asked only once.
    """
    if _WITHOUT_BLANKS.search(text) is None:
        return list(tokens)
    words: list[str] = []
    for token in tokens:
        if _WITHOUT_BLANKS.search(token) is None:
            words.append(token)
        else:
            # Japanese and Chinese share one dictionary: the locale changes nothing here.
            words += filter(_WORD.search, WordBreaker(token, "en"))
    return words
