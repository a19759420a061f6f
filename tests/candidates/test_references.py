"""What is right belongs to the instruction; a pattern that is none goes into quarantine."""

import pandas as pd

from im_assets.candidates.reading import REJECTED_COLUMNS
from im_assets.candidates.references import references

NONE = pd.DataFrame(columns=REJECTED_COLUMNS).astype({"line": "int64"})


def _row(line: int, instruction: str, output: str, **right: str) -> dict[str, object]:
    return {
        "source": "evaluation",
        "line": line,
        "instruction": instruction,
        "input": "",
        "output": output,
        "category": "",
        "answer": "",
        "pattern": "",
        **right,
    }


def test_every_output_of_an_instruction_has_its_answer() -> None:
    rows = pd.DataFrame(
        [_row(1, "2 + 2?", "four"), _row(2, "2 + 2?", "It is 4.", answer="4"), _row(3, "Hi", "Hi")]
    )
    kept, quarantined = references(rows, NONE)
    assert quarantined.empty
    assert kept["answer"].tolist() == ["4", "4", ""]


def test_a_bad_pattern_is_quarantined_with_its_reason() -> None:
    rows = pd.DataFrame([_row(1, "2 + 2?", "4", pattern="(4"), _row(2, "Hi", "Hi", pattern="^hi")])
    kept, quarantined = references(rows, NONE)
    assert kept["pattern"].tolist() == ["^hi"]
    assert quarantined["line"].tolist() == [1]
    assert quarantined["reason"].iloc[0].startswith("bad pattern: missing )")


def test_a_set_without_answers_has_empty_columns() -> None:
    rows = pd.DataFrame([_row(1, "Hi", "Hi")]).drop(columns=["answer", "pattern"])
    kept, _ = references(rows, NONE)
    assert kept[["answer", "pattern"]].to_numpy().tolist() == [["", ""]]
