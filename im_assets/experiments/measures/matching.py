"""Whether a response is right, on instructions whose answer can be verified.

``exact_match`` compares with the evaluation row's ``answer``, ``pattern_match`` searches for its
``pattern``, a regular expression. Rows that carry none do not count.

What is compared exactly is normalized on both sides, in this order:

1. Unicode NFKC.
2. A text that names its final answer is cut to it: what follows the last ``####`` (as in GSM8K), or
   else the last ``answer is`` or ``answer:``, up to the line's end. Without such a mark the whole
   text is the answer. References are cut too, so that GSM8K's can be given as they are.
3. Case folded, every run of white space one blank, none outside.
4. Final punctuation (``. , ; : ! ?``) off; quotation marks, ``*``, `` ` `` and ``$`` around it too.

Nothing else: articles, thousands separators and units stay, since dropping them makes different
answers equal. Where that is too strict, a pattern says exactly what is right.
"""

import re
import unicodedata

import pandas as pd

from im_assets.common.patterns import matches
from im_assets.experiments.measures import MeasureError, measure

_FINAL = (re.compile("####"), re.compile(r"\banswer(?:\s+is\b|\s*:)\s*:?", re.IGNORECASE))
_AROUND = "\"'“”‘’`*$ "
_END = ".,;:!? "


def final_answer(text: str) -> str:
    """What the text names as its answer (see the module), or all of it."""
    for mark in _FINAL:
        _, *after = mark.split(text)
        if after and after[-1].strip():
            return after[-1].strip().split("\n")[0]
    return text


def normalized(text: str) -> str:
    """The answer in a text, as it is compared (see the module)."""
    answer = final_answer(unicodedata.normalize("NFKC", text)).casefold()
    plain = " ".join(unicodedata.normalize("NFKC", answer).split())
    while (stripped := plain.rstrip(_END).strip(_AROUND)) not in ("", plain):
        plain = stripped
    return plain


def carrying(rows: pd.DataFrame, field: str) -> pd.DataFrame:
    """The rows with something in ``field``. Raises MeasureError when there is none."""
    found = rows[rows[field].fillna("") != ""]
    if found.empty:
        raise MeasureError(
            f"no instruction carries the field {field!r}: give the evaluation rows a column "
            f"{field!r}, or name it in data.evaluation.fields.{field}"
        )
    return found


def with_answer(rows: pd.DataFrame) -> int:
    """How many rows carry an answer."""
    return len(carrying(rows, "answer"))


def with_pattern(rows: pd.DataFrame) -> int:
    """How many rows carry a pattern."""
    return len(carrying(rows, "pattern"))


@measure(
    "exact_match", version=1, reads="answers", scale="logit", needs=("answer",), count=with_answer
)
def exact_match(rows: pd.DataFrame) -> float:
    """Share of the instructions with an answer whose response gives that answer, normalized."""
    known = carrying(rows, "answer")
    pairs = zip(known["response"], known["answer"], strict=True)
    return sum(normalized(r) == normalized(a) for r, a in pairs) / len(known)


@measure(
    "pattern_match",
    version=1,
    reads="answers",
    scale="logit",
    needs=("pattern",),
    count=with_pattern,
)
def pattern_match(rows: pd.DataFrame) -> float:
    """Share of the instructions with a pattern whose response matches it anywhere.

    Raises PatternError when a pattern takes too long on a response.
    """
    known = carrying(rows, "pattern")
    pairs = zip(known["response"], known["pattern"], strict=True)
    return sum(matches(pattern, response) for response, pattern in pairs) / len(known)
