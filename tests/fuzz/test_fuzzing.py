"""A few of the fuzzer's inputs in every run of the tests, and the ones that found something."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from im_assets.candidates.reading import read_source
from im_resources.study import PROJECT_ROOT
from tests.fuzz.inputs import DataInput, input_of
from tests.fuzz.judging import examine


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10**9))
def test_an_input_is_read_whole_or_refused_clearly(tmp_path: Path, number: int) -> None:
    assert examine(input_of(number), tmp_path) in ("read", "refused")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from(["json", "jsonl", "csv", "parquet", "csv.gz"]))
def test_any_bytes_are_read_whole_or_refused_clearly(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    assert examine(DataInput(f"rows.{kind}", content), tmp_path) in ("read", "refused")


def test_an_input_is_known_by_its_number() -> None:
    assert input_of(4711) == input_of(4711)
    assert input_of(4711) != input_of(4712)


def test_a_lost_row_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fuzz import judging

    real = read_source
    monkeypatch.setattr(judging, "read_source", lambda *a: (real(*a)[0].iloc[1:], real(*a)[1]))
    for content, kind in ((b'{"instruction": "a", "output": "b"}\n' * 2, "jsonl"),
                          (b"instruction,output\na,b\nc,d\n", "csv")):  # fmt: skip
        with pytest.raises(AssertionError):
            examine(DataInput(f"rows.{kind}", content, {"format": "alpaca"}), tmp_path)


def test_the_command_counts_its_inputs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.readers", "--inputs", "20", "--first", "1000"],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "20 inputs, 0 faults" in done.stdout
