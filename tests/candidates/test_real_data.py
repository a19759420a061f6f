"""Cleaning of real data, where it lies beside the checkout (or in $IM_DATA_DIR); else skipped."""

import os
import time
from pathlib import Path

import pandas as pd
import pytest

from im_assets.candidates.checks import leaking_examples
from im_assets.candidates.cleaning import clean
from im_assets.candidates.reading import read_source
from im_assets.candidates.references import references
from im_resources.study import PROJECT_ROOT, CleaningSettings, DataSource

DATA = Path(os.environ.get("IM_DATA_DIR") or PROJECT_ROOT.parent / "shared" / "data")
pytestmark = pytest.mark.skipif(
    not (DATA / "eval").is_dir(), reason=f"no real data in {DATA} (set IM_DATA_DIR)"
)


@pytest.fixture(scope="module")
def evaluation() -> pd.DataFrame:
    source = DataSource(path=str(DATA / "eval/d_eval.jsonl.gz"), outputs="outputs")
    return references(*read_source("evaluation", source))[0]


def test_the_evaluation_set_is_the_papers(evaluation: pd.DataFrame) -> None:
    outputs = evaluation.groupby("eval_id").size()
    assert len(outputs) == 332
    assert (outputs < 5).sum() == 22


def test_dolly_is_cleaned_in_seconds_and_without_leaks(evaluation: pd.DataFrame) -> None:
    source = DataSource(path=str(DATA / "unseen/dolly.jsonl.gz"), limit=5000)
    rows, rejected = read_source("unseen", source)
    start = time.process_time()
    kept, quarantined = clean(rows, rejected, CleaningSettings(), evaluation)
    assert time.process_time() - start < 10
    assert len(kept) + len(quarantined) == len(rows) + len(rejected)
    # A sample of different rows, with the copies of them that Dolly has.
    copies = (quarantined["kind"] == "exact duplicate").sum()
    assert len(rows) - copies == 5000
    assert 4850 < len(kept) < 5000
    # Of Dolly's rows none is of the evaluation set: a phrase in common is no leak.
    assert (quarantined["kind"] == "leaks").sum() <= 5
    assert leaking_examples([kept], evaluation, CleaningSettings().leak_ngram) == []


def test_rows_of_the_evaluation_set_are_found_among_others(evaluation: pd.DataFrame) -> None:
    rows, rejected = read_source(
        "unseen", DataSource(path=str(DATA / "unseen/dolly.jsonl.gz"), limit=1000)
    )
    long = evaluation[evaluation["output"].str.split().str.len() >= 12].iloc[::10]
    copies = rows.head(len(long)).assign(
        instruction=[f"Question {i}" for i in range(len(long))], output=long["output"].tolist()
    )
    mixed = pd.concat([rows, copies.assign(source="copied")], ignore_index=True)
    kept, quarantined = clean(mixed, rejected, CleaningSettings(), evaluation)
    assert "copied" not in set(kept["source"])
    found = quarantined[quarantined["source"] == "copied"]
    assert set(found["kind"]) == {"leaks"}
    assert found["reason"].str.contains("evaluation (d_eval.jsonl.gz) line", regex=False).all()
    assert set(found["other_file"]) == {"d_eval.jsonl.gz"}
