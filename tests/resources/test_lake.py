"""A lake gives what a file gives, keeps its past, and keeps no secret."""

import os
import random
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import psycopg2
import pytest

from im_resources import lake_engines, lake_upkeep
from im_resources.lake_address import LakeAddress
from im_resources.lake_faults import fault_of
from im_resources.lake_usage import USAGE
from im_resources.tables import WarehouseError
from im_resources.warehouse import SQL, Warehouse
from tests import servers


@pytest.fixture
def warehouse(lake_address: LakeAddress) -> Warehouse:
    return Warehouse(lake_address)


def part(seed: str, *values: Any) -> pd.DataFrame:
    return pd.DataFrame({"seed": [seed] * len(values), "value": list(values)})


# What a table may hold, with what is awkward about each.
VALUES: dict[str, list[Any]] = {
    "whole": [0, -(2**62), 2**62],
    "fraction": [0.1, float("inf"), float("nan"), 5e-324, None],
    "text": ["", "a\x00b", "o'b", "ñ 指 🦙", "NULL", "x" * 300, None],
    "vector": [np.ones(3, np.float32) / 3, np.zeros(0, np.float32), np.arange(8, dtype=np.float32)],
    "texts": [["a", "b'"], [], ['"q"', "", "a,b"], None],
    "time": [pd.Timestamp(2026, 1, 1, 1, 2, 3, 456789), pd.NaT, pd.Timestamp(1700, 1, 1)],
    "zoned": [pd.Timestamp(2026, 1, 1, 1, 2, 3, 456789, tz="UTC"), pd.NaT],
    "sure": [True, False],
    "empty": [None],
    "bytes": [b"\x00\xff", b""],
}


def drawn(chosen: random.Random, keys: list[str], rows: int) -> pd.DataFrame:
    columns = chosen.sample(sorted(VALUES), chosen.randint(1, 5))
    values = {c: [chosen.choice(VALUES[c]) for _ in range(rows)] for c in columns}
    key = pd.Series([chosen.choice(keys) for _ in range(rows)], dtype=object)
    return pd.DataFrame({"key": key, **values})


@pytest.mark.parametrize("seed", range(4))
def test_the_same_writes_give_the_same_rows_in_the_same_order_as_a_file(
    warehouse: Warehouse, tmp_path: Path, seed: int
) -> None:
    file, chosen = Warehouse(tmp_path / "warehouse.duckdb"), random.Random(seed)
    for _ in range(12):
        keys = [f"k{number}" for number in range(chosen.randint(1, 4))]
        # Few rows are kept in the catalog, more in Parquet files.
        frame = drawn(chosen, keys, chosen.choice([0, 1, 7, 25, 60]))
        what = chosen.choice(["rows", "rows", "append", "append", "table", "compact"])
        said: list[object] = []
        for one in (file, warehouse):
            try:
                if what == "rows":
                    one.replace_rows("t", frame, {"key": keys})
                elif what == "table":
                    one.replace_table("t", frame)
                elif what == "append":
                    numbered = frame.assign(number=range(len(frame)))
                    said.append(one.append("t", numbered, ["key", "number"]))
                elif one.exists():
                    one.compact()
            except WarehouseError as error:  # a type that clashes, alike in both
                said.append(str(error))
        assert len(said) in (0, 2)
        assert said[:1] == said[1:]
        assert file.column_types("t") == warehouse.column_types("t")
        if file.has_table("t"):
            pd.testing.assert_frame_equal(file.read_table("t"), warehouse.read_table("t"))


def test_rows_keep_their_order_over_files_deletes_and_upkeep(warehouse: Warehouse) -> None:
    for start in range(0, 200, 40):
        warehouse.append("t", pd.DataFrame({"k": range(start, start + 40)}), ["k"])
    warehouse.append("t", pd.DataFrame({"k": [200, 201]}), ["k"])
    warehouse.replace_rows("t", pd.DataFrame({"k": [5, 90, 200]}), {"k": [5, 90, 200]})
    kept = [k for k in range(202) if k not in (5, 90, 200)] + [5, 90, 200]
    assert warehouse.read_table("t")["k"].tolist() == kept
    lake_upkeep.tidy(warehouse.place, keep_days=1)  # type: ignore[arg-type]
    assert warehouse.read_table("t")["k"].tolist() == kept
    warehouse.compact()
    assert warehouse.read_table("t")["k"].tolist() == kept


def test_a_table_of_several_files_by_one_write_keeps_its_order(warehouse: Warehouse) -> None:
    warehouse.replace_table("t", pd.DataFrame({"k": [0], "text": ["x"]}))
    warehouse.execute("CALL warehouse.set_option('target_file_size', '100KB')")
    frame = pd.DataFrame(
        {"k": range(300_000), "text": [f"{k * 7919 % 300_007}" for k in range(300_000)]}
    )
    warehouse.replace_table("t", frame)
    files = warehouse.query("SELECT count(*) AS n FROM ducklake_list_files('warehouse', 't')")
    assert files["n"].iloc[0] > 1
    pd.testing.assert_frame_equal(warehouse.read_table("t"), frame)


# Of a pool's shards, in a DuckDB of their own (im_assets/candidates).
OF_SHARDS = {
    "alike_rows.sql", "history_counts.sql", "next_history.sql", "places_of_duplicates.sql",
    "since_versions.sql",
}  # fmt: skip


def test_every_statement_runs_on_a_lake(warehouse: Warehouse, tmp_path: Path) -> None:
    """And gives what it gives on a file: on tables with the columns that they name."""
    scores = pd.DataFrame(
        {"example_id": ["a", "b", "a"], "indicator": ["x", "x", "y"], "fingerprint": "f",
         "value": [1.0, 2.0, 3.0]}
    )  # fmt: skip
    pool = pd.DataFrame(
        {"example_id": ["a", "b"], "source": ["s", "t"], "category": ["c", None],
         "language": ["en", "de"], "language_confidence": [0.5, 1.0], "output": ["1", "two words"]}
    )  # fmt: skip
    tables: dict[str, pd.DataFrame] = {
        "answer_cache": pd.DataFrame({"eval_id": ["e"], "answer": ["A"], "tokens": [3],
                                      "complete": [True], "fingerprint": ["f"]}),
        "score_cache": scores,
        "example_scores": scores,
        "candidate_datasets": pool,
        "pool": pool,
        "cut_cache": pd.DataFrame({"example_id": ["a"], "fingerprint": ["f"], "cut": [2]}),
        "embedding_cache": pd.DataFrame({"example_id": ["a"], "fingerprint": ["f"],
                                         "embedding": [np.ones(3, np.float32)]}),
        "eval_loss_cache": pd.DataFrame({"eval_id": ["e"], "output_index": [0], "nll": [1.5],
                                         "tokens": [3], "loss": [0.5], "fingerprint": ["f"]}),
        "rating_cache": pd.DataFrame({"key": ["k"], "rating": [4.0]}),
        "judge_cache": pd.DataFrame({"key": ["k"], "verdict": ["first"]}),
        "unrated_examples": pd.DataFrame({"example_id": ["a"], "fingerprint": ["f"]}),
        "token_cuts": pd.DataFrame({"asset": ["x"], "partition": ["p"], "source": ["s"]}),
        "eval_set": pd.DataFrame({"eval_id": ["e", "e"]}),
        "quarantined_examples": pd.DataFrame({"dataset": ["d"], "source": ["s"], "kind": [None]}),
        "samples": pd.DataFrame({"set_id": ["1", "1"], "position": [0, 1], "source": ["s", "t"],
                                 "example_id": ["a", "b"]}),
    }  # fmt: skip
    given: dict[str, Any] = {
        "fingerprint": "f", "fingerprints": ["f"], "scores": "example_scores", "dataset": "pool",
        "members": "samples", "samples": "samples", "selection": "samples", "keys": ["k"],
        "transform": "log", "seed": "7", "most": 2, "pool": "pool",
    }  # fmt: skip
    import pyarrow as pa

    beside = {
        "wanted": pa.table({"example_id": ["a", "b"], "place": [0, 1], "key": ["k", "l"]}),
        "selected": pa.table({"example_id": ["a"]}),
        "indicators": pa.table({"indicator": ["x"], "fingerprint": ["f"], "number": [0]}),
        "candidates": pa.table(
            {"source": ["s", "s"], "example_id": ["a", "b"], "log_weight": [0.0, 1.0]}
        ),
    }
    file = Warehouse(tmp_path / "warehouse.duckdb")
    for one in (file, warehouse):
        for name, frame in tables.items():
            one.replace_table(name, frame)
    statements = sorted({path.name for path in SQL.glob("*.sql")} - OF_SHARDS)
    assert len(statements) > 15
    for statement in statements:
        text = (SQL / statement).read_text(encoding="utf-8")
        bound = {name: value for name, value in given.items() if f"${name}" in text}
        bound = {n: v for n, v in bound.items() if n != "fingerprint" or "$fingerprint\n" in text
                 or "$fingerprint " in text or text.rstrip().endswith("$fingerprint")}  # fmt: skip
        pd.testing.assert_frame_equal(
            file.query(statement, bound, beside),
            warehouse.query(statement, bound, beside),
            obj=statement,
        )


def test_the_past_is_read_as_it_was(warehouse: Warehouse) -> None:
    assert warehouse.snapshot() is None
    with pytest.raises(WarehouseError, match="there is no lake at"):
        warehouse.as_of(1)
    warehouse.replace_rows("losses", part("a", 1), {"seed": "a"})
    first = warehouse.written
    assert first is not None
    assert first == warehouse.snapshot()
    warehouse.replace_rows("losses", part("a", "text"), {"seed": "a"})
    warehouse.execute("DROP TABLE losses")
    past = warehouse.as_of(first)
    assert past.read_table("losses").to_dict("list") == {"seed": ["a"], "value": [1]}
    assert past.tables() == ["losses"]
    assert past.snapshot() == first
    assert not warehouse.has_table("losses")
    assert warehouse.as_of(first + 1).read_table("losses")["value"].tolist() == ["text"]
    with pytest.raises(WarehouseError, match="is the past, and cannot be written to"):
        past.replace_rows("losses", part("a", 2), {"seed": "a"})
    with pytest.raises(WarehouseError, match="has no snapshot 999: it is not made yet"):
        warehouse.as_of(999)
    with pytest.raises(duckdb.Error, match="read-only"):
        warehouse.query("INSERT INTO warehouse.main.warehouse_version VALUES (9)")


def test_a_file_has_no_past(tmp_path: Path) -> None:
    file = Warehouse(tmp_path / "warehouse.duckdb")
    file.replace_table("t", part("a", 1))
    assert file.snapshot() is file.written is None
    with pytest.raises(WarehouseError, match=r"is a file, which has no snapshot 3"):
        file.as_of(3)


def test_upkeep_gives_up_what_is_old_and_keeps_what_is_not(
    warehouse: Warehouse, lake_address: LakeAddress
) -> None:
    for number in range(6):
        warehouse.append("t", pd.DataFrame({"k": range(number * 20, number * 20 + 20)}), ["k"])
    before = warehouse.snapshot()
    assert before is not None
    lake_upkeep.tidy(warehouse.place, keep_days=1)  # type: ignore[arg-type]
    assert len(warehouse.as_of(before - 1).read_table("t")) == 100  # of today, so it is kept
    lake_upkeep.tidy(warehouse.place, keep_days=0)  # type: ignore[arg-type]
    with pytest.raises(WarehouseError, match="given up by the upkeep"):
        warehouse.as_of(before - 1)
    assert len(warehouse.read_table("t")) == 120
    files = [path for path in Path(lake_address.folder).rglob("*.parquet") if "/t/" in str(path)]
    assert len(files) == 1
    assert len(lake_upkeep.snapshots(warehouse)) == 1


def test_what_was_erased_is_nowhere_after_compacting(
    warehouse: Warehouse, lake_address: LakeAddress
) -> None:
    erased = "somebody's own words"
    frame = pd.DataFrame({"key": [f"k{n}" for n in range(30)], "text": ["zzz kept"] * 30})
    frame.loc[3, "text"] = erased
    warehouse.replace_table("many", frame)  # in a file
    warehouse.replace_table("few", frame.head(5))  # in the catalog
    assert _found_in(lake_address, erased)
    for table in ("many", "few"):
        warehouse.replace_rows(table, pd.DataFrame(), {"key": ["k3"]})
    warehouse.compact()
    assert not _found_in(lake_address, erased)
    assert len(warehouse.read_table("many")) == 29
    assert len(warehouse.read_table("few")) == 4


def test_no_secret_is_in_the_catalog_the_files_or_an_error(
    warehouse: Warehouse, lake_address: LakeAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-store")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    warehouse.replace_table("t", part("a", *range(40)))
    assert _found_in(lake_address, "losses") == _found_in(lake_address, "no such text")
    for secret in (servers.PASSWORD, "hush-hush", "key-of-the-store"):
        assert not _found_in(lake_address, secret)
        assert secret not in warehouse.name
    store = LakeAddress(lake_address.catalog, lake_address.schema + "x", "s3://mining/tables")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(WarehouseError) as told:
        Warehouse(store, wait=0).replace_table("t", part("a", *range(40)))
    shown = f"{told.value} {told.value.__cause__}"
    assert "s3://mining/tables" in shown
    assert "hush-hush" not in shown
    assert servers.PASSWORD not in shown
    with lake_engines.opened({}, store.data) as connection:
        kept = connection.execute("FROM duckdb_secrets()").df().to_string()
    assert "key-of-the-store" in kept
    assert "hush-hush" not in kept


def _found_in(address: LakeAddress, text: str) -> list[str]:
    """Where a text is in the catalog's tables, in the names and the bytes of files."""
    found = []
    with psycopg2.connect(address.catalog) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
            (address.schema,),
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{address.schema}"."{table}" AS t')
            # What is inlined is kept as bytes.
            words = (text, text.encode().hex())
            found += [table for (row,) in cursor.fetchall() if any(word in row for word in words)]
    for path in Path(address.folder).rglob("*"):
        if text in str(path) or (path.is_file() and text.encode() in path.read_bytes()):
            found.append(str(path))
    return found


def test_conflicts_are_counted(warehouse: Warehouse) -> None:
    warehouse.replace_table("t", part("a", 1))
    before = USAGE.writes
    warehouse.replace_table("t", part("a", 2))
    warehouse.append("t", part("a", 2), ["seed"])  # adds nothing
    assert USAGE.writes == before + 1


def test_a_lake_of_files_elsewhere_is_not_mistaken(lake_address: LakeAddress) -> None:
    Warehouse(lake_address).replace_table("t", part("a", 1))
    moved = LakeAddress(lake_address.catalog, lake_address.schema, lake_address.data + "2")
    with pytest.raises(WarehouseError, match="has its files elsewhere than in"):
        Warehouse(moved, wait=0).read_table("t")


@pytest.mark.parametrize("name", ["pg_study", "public", "x" * 64])
def test_a_name_that_postgres_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(WarehouseError, match="cannot be in a lake"):
        LakeAddress("postgresql://im@host/im", name, "/data")


def test_an_address_is_read_as_it_is_written() -> None:
    address = LakeAddress("postgresql://im@host/im?sslmode=require", "study", "/a folder/tables")
    assert LakeAddress.parse(str(address)) == address
    assert LakeAddress.parse("/a/warehouse.duckdb") is None


def test_a_fault_of_a_statement_is_not_the_lakes(warehouse: Warehouse) -> None:
    for statement in ("SELEC", "FROM nowhere", "FROM read_csv('/nowhere.csv')"):
        with pytest.raises(duckdb.Error):
            warehouse.query(statement)
    with pytest.raises(duckdb.Error):
        warehouse.execute("ROLLBACK; USE memory; INSERT INTO t VALUES (1)")
    address = LakeAddress("postgresql://im@host/im", "study", "/data")
    quoting = duckdb.ConstraintException("violates: 'server closed the connection'")
    assert fault_of(quoting, address) is None


def test_engines_are_shared_and_few(warehouse: Warehouse, catalog_of_session: str) -> None:
    warehouse.replace_table("t", part("a", 1))
    for snapshot in range(warehouse.snapshot() or 0):
        warehouse.as_of(snapshot).has_table("t")
    assert len(lake_engines._idle) <= lake_engines.KEPT
    assert warehouse.read_table("t")["value"].tolist() == [1]
    assert catalog_of_session in warehouse.name
    assert os.environ["PGPASSWORD"] == servers.PASSWORD
