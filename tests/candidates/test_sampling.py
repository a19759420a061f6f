"""A sample of a source: which rows, whatever their order, and what a row more changes."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from im_assets.candidates.cleaning import clean
from im_assets.candidates.reading import read
from im_assets.candidates.sampling import Sample
from im_assets.common.digests import sample_rank, taken
from im_resources.study import CleaningSettings, DataSource


def rows_of(numbers: list[int]) -> list[dict[str, Any]]:
    return [{"instruction": f"Ask {n}.", "input": "", "output": f"Say {n}."} for n in numbers]


def sample(numbers: list[int], size: int, seed: int = 0) -> list[int]:
    found = Sample(size, seed)
    for row in rows_of(numbers):
        found.add(row)
    assert found.seen == len(numbers)
    return [int(row["instruction"][4:-1]) for row in found.rows()]


NUMBERS = st.lists(st.integers(0, 60), min_size=1, max_size=80)


@given(numbers=NUMBERS, size=st.integers(1, 30), seed=st.integers(0, 3))
def test_it_is_the_lowest_ranks_with_their_copies_in_the_order_of_the_file(
    numbers: list[int], size: int, seed: int
) -> None:
    names = {n: "\x1f".join([f"Ask {n}.", "", f"Say {n}.", ""]) for n in numbers}
    ranked = sorted(set(numbers), key=lambda n: sample_rank(seed, names[n]))
    wanted = set(ranked[:size])
    assert sample(numbers, size, seed) == [n for n in numbers if n in wanted]


@given(numbers=NUMBERS, size=st.integers(1, 30), order=st.randoms())
def test_the_order_of_the_rows_does_not_matter(numbers: list[int], size: int, order: Any) -> None:
    other = list(numbers)
    order.shuffle(other)
    assert sorted(sample(other, size)) == sorted(sample(numbers, size))


def test_a_row_more_displaces_at_most_one_and_a_larger_sample_holds_the_smaller() -> None:
    grown = [set(sample(list(range(count)), 20)) for count in range(20, 300)]
    assert {len(before - after) for before, after in pairwise(grown)} == {0, 1}
    sizes = [set(sample(list(range(300)), size)) for size in (5, 20, 80, 300)]
    assert all(small < large for small, large in pairwise(sizes))


def test_every_row_is_taken_about_as_often() -> None:
    counts = [0] * 40
    for seed in range(400):
        for number in sample(list(range(40)), 10, seed):
            counts[number] += 1
    # 400 draws at a quarter: mean 100, standard deviation 8.7.
    assert 100 - 4.5 * 8.7 < min(counts) <= max(counts) < 100 + 4.5 * 8.7


def test_names_are_taken_alike() -> None:
    names = [f"e{n}" for n in range(50) for _ in range(2)]
    assert taken(names, 3, "first", 0) == {"e0", "e1", "e2"}
    assert taken(names, None, "sample", 0) == taken(names, 50, "sample", 0) == set(names)
    assert taken(reversed(names), 7, "sample", 4) == taken(names, 7, "sample", 4)


def test_a_source_gives_the_same_rows_in_any_order_and_format(tmp_path: Path) -> None:
    rows = [row | {"category": "c", "id": n} for n, row in enumerate(rows_of(list(range(200))))]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = tmp_path / "rows.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["output", "instruction", "input"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(reversed(rows))
    one, other = (read("s", DataSource(path=str(path), limit=30)) for path in (lines, table))
    assert set(one.rows["instruction"]) == set(other.rows["instruction"])
    assert (len(one.rows), one.usable, other.usable) == (30, 200, 200)
    # Lines lead back to the file that they are of.
    first = one.rows.iloc[0]
    assert rows[first["line"] - 1]["instruction"] == first["instruction"]


def test_copies_of_a_taken_row_are_told_as_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = rows_of([*range(40), *range(40)])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read("s", DataSource(path=str(path), limit=10))
    kept, quarantined = clean(found.rows, found.rejected, CleaningSettings(), None)
    assert len(kept) == 10
    assert quarantined["kind"].tolist() == ["exact duplicate"] * 10
