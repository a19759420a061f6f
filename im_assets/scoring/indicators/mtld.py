"""mtld: lexical diversity of the response (McCarthy & Jarvis 2010, doi:10.3758/BRM.42.2.381)."""

import re
import string
from collections.abc import Iterable

import numpy as np

from im_assets.common.words import segmented
from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import indicator

# ASCII, as LexicalRichness has it: typographic quotes stay part of their word.
PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


@indicator("mtld", version=3, text="conversation")
def mtld(batch: ScoringBatch, threshold: float = 0.72) -> np.ndarray:
    """Measure of textual lexical diversity of each response (of a conversation, all its replies);
    0 for a response without words."""
    return np.array([text_mtld(text, threshold) for text in batch.all_responses])


def text_mtld(text: str, threshold: float = 0.72) -> float:
    """Mean length of word runs that keep a type-token ratio above the threshold, both directions.

    Follows LexicalRichness 0.5.1: lower case; digits and hyphens removed, which joins what they
    part; other punctuation separates words; a factor ends where the ratio is at most the threshold;
    the rest counts as (1 - TTR) / (1 - threshold). A script without blanks is cut into words, which
    LexicalRichness does not do.
    """
    words = segmented(text, PUNCTUATION.sub(" ", re.sub("[0-9–—-]", "", text.lower())).split())
    if not words:
        return 0.0
    return (_one_way(words, threshold) + _one_way(words[::-1], threshold)) / 2


def _one_way(words: Iterable[str], threshold: float) -> float:
    factors, seen, length, total = 0.0, set[str](), 0, 0
    ratio = 1.0
    for word in words:
        total += 1
        length += 1
        seen.add(word)
        ratio = len(seen) / length
        if ratio <= threshold:
            factors, seen, length, ratio = factors + 1, set(), 0, 1.0
    factors += (1 - ratio) / (1 - threshold)
    return total / factors if factors else float(total)
