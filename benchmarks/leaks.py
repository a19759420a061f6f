"""How many rows of real data are called leaks, and how many planted ones are found.

``python benchmarks/leaks.py`` reads the data beside the checkout (or in $IM_DATA_DIR). It prints,
for several values of ``cleaning.leak_coverage``, the rows of the candidates and of Dolly that leak
the paper's evaluation set, and the share found of rows that were made from its texts: copies, one
word changed, half of a text, prompt or output alone; and the same for code and for texts without
blanks.
"""

import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from im_assets.candidates.leaks import SHORT, Leaks
from im_assets.candidates.ngrams import Hashes, WordHashes
from im_assets.candidates.reading import read_source
from im_assets.candidates.references import references
from im_assets.common.words import words_of
from im_resources.study import PROJECT_ROOT, CleaningSettings, DataSource

DEFAULTS = CleaningSettings()
DATA = Path(os.environ.get("IM_DATA_DIR") or PROJECT_ROOT.parent / "shared" / "data")
POOLS = ("candidates/alpaca", "candidates/oasst1", "candidates/stackexchange",
         "candidates/wikihow", "candidates/self_instruct", "unseen/dolly")  # fmt: skip
COVERAGES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
RUNS = (3, 4, 5, 6, 8)
OTHER = "Please have a look at this and tell me what you think about it:"


def read(name: str) -> pd.DataFrame:
    return read_source(name.split("/")[1], DataSource(path=f"{DATA}/{name}.jsonl.gz"))[0]


def changed(text: str, draw: random.Random) -> str:
    """The text with one of its words replaced."""
    word = draw.choice([w for w in words_of(text) if len(w) > 1] or words_of(text))
    at = text.lower().find(word)
    return f"{text[:at]}replacement{text[at + len(word) :]}"


def planted(evaluation: pd.DataFrame, draw: random.Random) -> dict[str, list[tuple[str, str]]]:
    """Rows (prompt, output) that leak, by how they were made; of texts of eight words or more."""
    prompts = (evaluation["instruction"] + " " + evaluation["input"]).drop_duplicates()
    copied = [text for text in prompts if len(words_of(text)) >= SHORT]
    outputs = [text for text in evaluation["output"] if len(words_of(text)) >= SHORT]
    code = [text for text in outputs if "def " in text or "function" in text or "{" in text]
    return {
        "prompt copied, other output": [(text, "Done.") for text in copied],
        "output copied, other prompt": [(OTHER, text) for text in outputs],
        "output quoted in a prompt": [(f"{OTHER} {text}", "Fine.") for text in outputs],
        "prompt, one word changed": [(changed(text, draw), "Done.") for text in copied],
        "output, one word changed": [(OTHER, changed(text, draw)) for text in outputs],
        "code, one word changed": [(OTHER, changed(text, draw)) for text in code],
        "first two thirds of an output": [(OTHER, text[: 2 * len(text) // 3]) for text in outputs],
    }


def hashed(rows: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int, Hashes, Hashes]]:
    """The rows with the hashes of their words in place of prompt and output."""
    hashes = WordHashes()
    return ((number, hashes.of(prompt), hashes.of(output)) for number, prompt, output in rows)


def main() -> None:
    source = DataSource(path=f"{DATA}/eval/d_eval.jsonl.gz", outputs="outputs")
    evaluation = references(*read_source("evaluation", source))[0]
    pool = pd.concat(map(read, POOLS), ignore_index=True)
    prompts = pool["instruction"] + " " + pool["input"]
    rows = list(zip(range(len(pool)), prompts, pool["output"], strict=True))
    kinds = planted(evaluation, random.Random(0))
    made = [(kind, text) for kind, texts in kinds.items() for text in texts]
    more = [(len(rows) + number, *texts) for number, (_, texts) in enumerate(made)]
    print(f"{len(rows)} rows, {len(evaluation)} references; planted: {len(more)}")
    for n in RUNS:
        for coverage in COVERAGES:
            if n != DEFAULTS.leak_ngram and coverage != DEFAULTS.leak_coverage:
                continue
            leaks = Leaks(evaluation, n, coverage)
            real = leaks.judge(leaks.count(hashed(rows)))
            found = leaks.judge(leaks.count(hashed([*rows, *more])))
            planted_ones = pd.DataFrame(made, columns=["kind", "texts"])
            planted_ones["found"] = planted_ones.index.map(lambda i: len(rows) + i).isin(
                list(found)
            )
            shares = planted_ones.groupby("kind")["found"].mean()
            print(f"\nleak_ngram {n}, leak_coverage {coverage}: {len(real)} real rows")
            print(shares.round(3).to_string())
            if (n, coverage) == (DEFAULTS.leak_ngram, DEFAULTS.leak_coverage):
                for number, leak in list(real.items())[:40]:
                    print("   ", pool["source"][number], leak)


if __name__ == "__main__":
    main()
