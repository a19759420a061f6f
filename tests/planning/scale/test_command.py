"""The command, its page and its errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from im_assets.planning.scale.__main__ import main
from im_assets.planning.scale.breaking import limits
from im_assets.planning.scale.coefficients import coefficients
from im_assets.planning.scale.machines import MACHINES
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.telling import amount, number, put
from im_assets.planning.scale.totals import Question
from im_resources.study import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "scale.md"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_page_holds_what_the_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "scale.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["--page", str(copy)]) == 0
    again = "run: python -m im_assets.planning.scale --page docs/scale.md"
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), again
    page = PAGE.read_text(encoding="utf-8")
    for line in said(capsys, "--all").splitlines()[1:]:
        assert line in page


def test_a_page_without_places_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- scale: needs -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="places for needs; expected one each for needs, limits"):
        put(page, {"needs": "a", "limits": "b"})
    put(page, {"needs": r"| \1 |"})
    assert page.read_text() == "<!-- scale: needs -->\n\n| \\1 |\n\n<!-- end -->\n"


def test_values_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(
        said(capsys, "--json", "--model", "8b", "--pool-rows", "5e6", "--gpus", "4",
             "--gpu", "h200", "--gpu-hour", "2-3.5")
    )  # fmt: skip
    [(title, answers)] = found.items()
    assert title == "8b, 5 million rows"
    figures = answers["4 h200"]["figures"]
    hours, cost = figures["GPU time together"], figures["cost of GPUs"]
    assert 0 < hours["low"] < hours["high"]
    share = coefficients()["scheduling_share"]  # of the time, which is paid for too
    assert share is not None
    paid = (2 * hours["low"] * (1 + share.low), 3.5 * hours["high"] * (1 + share.high))
    assert (cost["low"], cost["high"]) == pytest.approx(paid)
    assert figures["cost of storage"]["why"] == "no price given"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--pool-rows", "many"], "'many' is no whole number, such as 1000 or 1e9"),
        (["--pool-rows", "1.5"], "'1.5' is no whole number"),
        (["--trials", "-3"], "'-3' is no whole number"),
        (["--trials", "inf"], "'inf' is no whole number"),
        (["--trials", "0"], "trials: 0; expected 1 or more"),
        (["--gpus", "0"], "count: 0; expected 1 or more"),
        (["--gpu", "tpu"], "invalid choice: 'tpu'"),
        (["--model", "13b"], "invalid choice: '13b'"),
        (["--gpu-hour", "cheap"], "'cheap' is no price"),
        (["--gpu-hour", "3-2"], "'3-2' is no price"),
        (["--months", "0"], "'0' is no number above 0"),
        (["--pool-rows", "1e8", "--scored-rows", "1e9"], "scored_rows: 1,000,000,000; expected 0"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert wrong in capsys.readouterr().err


def test_it_needs_no_model_and_no_data() -> None:
    code = (
        "import sys; from im_assets.planning.scale.__main__ import main; main(['--all']); "
        "print(sorted({'torch', 'transformers', 'duckdb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PROJECT_ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_breaks_is_told_in_the_order_in_which_it_is_met() -> None:
    asked = [Question("7b"), Question("70b")]
    found = limits(asked, MACHINES["h100"], 8, 64, 1, 2000)
    kinds = [limit.of for limit in found]
    assert list(dict.fromkeys(kinds)) == ["weights of the base", "rows of the pool", "trials"]
    for kind in set(kinds):
        ends = [limit.at.low for limit in found if limit.of == kind and limit.at is not None]
        assert ends == sorted(ends)
        unknown = [limit.at is None for limit in found if limit.of == kind]
        assert unknown == sorted(unknown)  # what was not measured stands last
    memory = next(limit for limit in found if "64 GiB" in limit.what)
    each = coefficients()["driver_bytes"]
    assert each is not None
    assert memory.at == Range.of(64 * 2**30) / each
    twice = limits(asked, MACHINES["h100"], 8, 128, 1, 2000)
    other = next(limit for limit in twice if "128 GiB" in limit.what)
    assert memory.at is not None
    assert other.at == memory.at * 2


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (Range(2408, 4977), "GPU-h", "2,400 to 5,000 GPU-h"),
        (Range(0.0281, 0.0562), "TB", "28 to 56 GB"),
        (Range(0.5, 1.2), "TB", "0.50 to 1.2 TB"),
        (Range(4.3e-5, 5.1e-5), "TB", "43 to 51 MB"),
        (Range(0.18, 0.38), "days", "4.3 to 9.1 h"),
        (Range(3, 3), "", "3.0"),
        (Range(0, 40), "GB", "at most 40 GB"),
        (Range(0, 0), "GB", "0 GB"),
        (None, "GB", "not measured"),
    ],
)
def test_amounts_in_words(value: Range | None, unit: str, shown: str) -> None:
    assert amount(value, unit) == shown


def test_numbers_have_two_digits() -> None:
    assert [number(n) for n in (0, 1234, 99.6, 0.123, 9.96)] == [
        "0",
        "1,200",
        "100",
        "0.12",
        "10.0",
    ]
