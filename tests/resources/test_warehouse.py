"""The warehouse keeps what was written last, whole, whatever the order, the types or the errors."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from im_resources import warehouse as module
from im_resources.warehouse import Warehouse, WarehouseError


@pytest.fixture(params=["file", "lake"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    if request.param == "lake":
        return Warehouse(request.getfixturevalue("lake_address"))
    return Warehouse(tmp_path / "state" / "warehouse.duckdb")


def again(warehouse: Warehouse) -> Warehouse:
    """The same tables, as another process opens them."""
    return Warehouse(warehouse.name)


def part(seed: str, *values: Any) -> pd.DataFrame:
    return pd.DataFrame({"seed": [seed] * len(values), "value": list(values)})


def rows(warehouse: Warehouse, table: str = "losses") -> list[tuple[Any, ...]]:
    return sorted(warehouse.read_table(table).itertuples(index=False, name=None), key=repr)


def test_a_repeated_write_leaves_the_same_rows(warehouse: Warehouse) -> None:
    warehouse.replace_rows("losses", part("a", 1, 2), {"seed": "a"})
    warehouse.replace_rows("losses", part("b", 3), {"seed": "b"})
    for _ in range(2):
        warehouse.replace_rows("losses", part("a", 4), {"seed": "a"})
    assert rows(warehouse) == [("a", 4), ("b", 3)]


def test_several_keys_are_rewritten_at_once_and_an_empty_frame_deletes(
    warehouse: Warehouse,
) -> None:
    for seed in "abc":
        warehouse.replace_rows("losses", part(seed, 1), {"seed": seed})
    warehouse.replace_rows("losses", part("a", 2), {"seed": ["a", "b"]})
    assert rows(warehouse) == [("a", 2), ("c", 1)]
    warehouse.replace_rows("losses", part("c"), {"seed": "c"})
    warehouse.replace_rows("losses", pd.DataFrame(), {"seed": np.array(["a"])})
    assert rows(warehouse) == []
    assert list(warehouse.read_table("losses")) == ["seed", "value"]
    for seed in "de":
        warehouse.replace_rows("losses", part(seed, 1), {})  # every row
    assert rows(warehouse) == [("e", 1)]


def test_deleting_from_a_table_that_is_not_there_makes_none(warehouse: Warehouse) -> None:
    warehouse.replace_rows("losses", pd.DataFrame(), {"seed": "a"})
    assert not warehouse.has_table("losses")
    with pytest.raises(WarehouseError, match="no table 'losses'"):
        warehouse.read_table("losses")


def test_a_first_write_without_rows_does_not_fix_the_types(warehouse: Warehouse) -> None:
    warehouse.replace_rows("losses", part("a"), {"seed": "a"})
    warehouse.replace_rows("losses", part("b", [0.5, 1.0]), {"seed": "b"})
    warehouse.replace_rows("losses", part("c", None), {"seed": "c"})
    warehouse.replace_rows("losses", part("a"), {"seed": "a"})
    assert warehouse.read_table("losses", where={"seed": "b"})["value"].iloc[0].tolist() == [0.5, 1]


def test_columns_are_matched_by_name_and_new_ones_are_added(warehouse: Warehouse) -> None:
    warehouse.replace_rows("losses", part("a", 1), {"seed": "a"})
    newer = pd.DataFrame({"note": ["new"], "value": [2], "seed": ["b"]})
    warehouse.replace_rows("losses", newer, {"seed": "b"})
    warehouse.replace_rows("losses", part("c", 3), {"seed": "c"})
    assert rows(warehouse) == [("a", 1, None), ("b", 2, "new"), ("c", 3, None)]


@pytest.mark.parametrize(("value", "type_"), [("text", "VARCHAR"), (0.7, "DOUBLE")])
def test_a_type_clash_names_table_column_and_types_and_keeps_the_old_rows(
    warehouse: Warehouse, value: Any, type_: str
) -> None:
    warehouse.replace_rows("losses", part("a", 1), {"seed": "a"})
    warehouse.replace_rows("losses", part("b", 2), {"seed": "b"})
    with pytest.raises(WarehouseError, match=f"'losses', column 'value'.*BIGINT.*{type_}"):
        warehouse.replace_rows("losses", part("a", value), {"seed": "a"})
    with pytest.raises(WarehouseError, match="BIGINT"):
        warehouse.append("losses", part("d", value), key=["seed"])
    assert rows(warehouse) == [("a", 1), ("b", 2)]
    warehouse.replace_rows("losses", part("a", value), {"seed": ["a", "b"]})  # nothing old stays
    assert rows(warehouse) == [("a", value)]


def test_whole_numbers_go_into_a_column_of_fractions(warehouse: Warehouse) -> None:
    warehouse.replace_rows("losses", part("a", 0.5), {"seed": "a"})
    warehouse.replace_rows("losses", part("b", 2), {"seed": "b"})
    assert rows(warehouse) == [("a", 0.5), ("b", 2.0)]


def test_an_insert_that_fails_after_the_delete_leaves_the_old_rows(warehouse: Warehouse) -> None:
    # A lake has no other constraint.
    constraint = "NOT NULL" if warehouse.is_lake else "CHECK (value < 100)"
    warehouse.execute(f"CREATE TABLE losses (seed VARCHAR, value BIGINT {constraint})")
    warehouse.replace_rows("losses", part("a", 1), {"seed": "a"})
    wrong = part("a", 2, None if warehouse.is_lake else 200).astype({"value": "Int64"})
    with pytest.raises(duckdb.ConstraintException):
        warehouse.replace_rows("losses", wrong.assign(note="x"), {"seed": "a"})
    assert rows(warehouse) == [("a", 1)]
    assert list(warehouse.read_table("losses")) == ["seed", "value"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (part("b", 1), "1 rows with a 'seed' that is not being written: found .*'b'.*writing.*'a'"),
        (pd.DataFrame({"value": [1]}), "no column 'seed'"),
        (part("a", 1).rename(columns={"value": 'x"; DROP TABLE losses; --'}), "cannot name"),
    ],
)
def test_rows_that_a_repeated_write_would_double_are_refused(
    warehouse: Warehouse, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(WarehouseError, match=message):
        warehouse.replace_rows("losses", frame, {"seed": "a"})
    assert not warehouse.has_table("losses")


def test_a_column_of_mixed_types_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match=r"table 'losses'.*column value.*'text' with type str"):
        warehouse.replace_rows("losses", part("a", 1, "text"), {"seed": "a"})


def test_replace_table_takes_a_changed_schema(warehouse: Warehouse) -> None:
    warehouse.replace_table("rule", pd.DataFrame({"term": ["x"], "beta": [1]}))
    warehouse.replace_table("rule", pd.DataFrame({"beta": ["text"]}))
    assert rows(warehouse, "rule") == [("text",)]
    with pytest.raises(WarehouseError, match="without columns"):
        warehouse.replace_table("rule", pd.DataFrame())
    assert rows(warehouse, "rule") == [("text",)]


def test_append_keeps_the_first_of_each_key(warehouse: Warehouse) -> None:
    chunk = pd.DataFrame({"id": ["x", "x", None], "kind": ["k"] * 3, "score": [1.0, 2.0, 3.0]})
    assert warehouse.append("scores", chunk, key=["id", "kind"]) == 2
    assert warehouse.append("scores", chunk, key=["id", "kind"]) == 0
    more = pd.DataFrame({"score": [9.0, 4.0], "kind": ["k", "k"], "id": ["x", "y"], "n": [1, 2]})
    assert warehouse.append("scores", more, key=["id", "kind"]) == 1
    assert warehouse.append("scores", more.iloc[:0], key=["id", "kind"]) == 0
    stored = warehouse.read_table("scores", ["id", "score"])
    assert stored.to_dict("list") == {"id": ["x", None, "y"], "score": [1.0, 3.0, 4.0]}
    with pytest.raises(WarehouseError, match="key column"):
        warehouse.append("scores", more, key=["nowhere"])


def test_threads_append_side_by_side(warehouse: Warehouse) -> None:
    def write(start: int) -> int:
        chunk = pd.DataFrame({"id": range(start, start + 20), "score": 0.5})
        return again(warehouse).append("scores", chunk, key=["id"])

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(0, 160, 10)))
    assert sum(written) == len(warehouse.read_table("scores")) == 170


def test_embeddings_and_awkward_text_come_back_as_they_went(warehouse: Warehouse) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 384)).astype(np.float32)
    texts = ['it\'s "quoted"; --', "ñandú 指令 🦙 \n\t", ""]
    frame = pd.DataFrame(
        {
            "id": texts,
            "vector": list(vectors),
            "outputs": [["a", "b'"], [], ["é"]],
            "at": pd.Series([pd.Timestamp(2026, 1, 1), pd.NaT, pd.Timestamp(2026, 1, 3)]),
            "sure": [True, False, True],
        }
    )
    warehouse.replace_rows("texts", frame, {"id": texts})
    back = warehouse.read_table("texts")
    np.testing.assert_array_equal(np.stack(back["vector"].tolist()), vectors)
    assert back["vector"].iloc[0].dtype == np.float32
    assert [list(o) for o in back["outputs"]] == frame["outputs"].tolist()
    assert back["id"].tolist() == texts
    assert back["at"].equals(frame["at"])
    assert back["sure"].tolist() == [True, False, True]
    assert len(warehouse.read_table("texts", ["sure"], {"id": texts[0]})) == 1


def test_a_vector_column_of_fixed_length_takes_arrays(warehouse: Warehouse) -> None:
    if not warehouse.is_lake:
        warehouse.execute("CREATE TABLE vectors (id VARCHAR, vector FLOAT[3])")
    arrays = pd.DataFrame({"id": ["a"], "vector": [np.ones(3, dtype=np.float32)]})
    warehouse.append("vectors", arrays, key=["id"])
    assert np.stack(warehouse.read_table("vectors")["vector"].tolist()).tolist() == [[1, 1, 1]]


def test_queries_bind_parameters_and_come_from_files(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of.sql").write_text("SELECT $x AS x, len($many) AS n")
    monkeypatch.setattr(module, "SQL", tmp_path)
    found = warehouse.query("of.sql", {"x": "it's", "many": [np.int64(1), np.int64(2)]})
    assert found.to_dict("records") == [{"x": "it's", "n": 2}]
    assert warehouse.query("SELECT ? + 1 AS y", [np.int64(1)])["y"].tolist() == [2]


def test_a_query_never_reads_a_python_variable(warehouse: Warehouse) -> None:
    parameters = pd.DataFrame({"x": [1]})
    with pytest.raises(duckdb.CatalogException):
        warehouse.query("SELECT * FROM parameters")
    assert len(parameters) == 1


def test_a_file_named_like_the_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"main\.duckdb"):
        Warehouse(tmp_path / "main.duckdb")


KEYS = ["a", "o'b", 'ü "x"', "seed-000"]
WRITES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(KEYS), min_size=1, unique=True),
        st.lists(st.integers(-(2**40), 2**40) | st.none(), max_size=3),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[*HealthCheck])
@given(writes=WRITES)
def test_the_table_is_the_last_write_of_each_partition(
    warehouse: Warehouse, writes: list[tuple[list[str], list[int | None]]]
) -> None:
    last: dict[str, list[int | None]] = {}
    table = f"losses_{len(warehouse.tables())}"
    for keys, values in writes:
        last |= dict.fromkeys(keys, values)
        frame = pd.DataFrame([(k, v) for k in keys for v in values], columns=["seed", "value"])
        frame["value"] = frame["value"].astype("Int64")
        warehouse.replace_rows(table, frame, {"seed": keys})
    stored = warehouse.query(f"SELECT seed, value FROM {table}")
    found = [(k, None if pd.isna(v) else int(v)) for k, v in stored.itertuples(index=False)]
    assert sorted(found, key=repr) == sorted([(k, v) for k in last for v in last[k]], key=repr)


def test_no_progress_bar_is_drawn_between_rows(warehouse: Warehouse) -> None:
    warehouse.replace_table("t", pd.DataFrame({"a": [1]}))
    shown = warehouse.query("SELECT current_setting('enable_progress_bar') AS bar")
    assert not shown["bar"].any()
