"""Files as users have them: of several shapes, languages and packings."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CITIES = ["北京", "上海", "广州", "成都", "西安", "杭州"]
TOWNS = ["Köln", "Berlin", "Hamburg", "Leipzig", "Bremen", "Kiel"]


def write_all(folder: Path) -> dict[str, Path]:
    """Every file by its kind."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "german": german(folder / "tickets.csv"),
        "tabs": tabs(folder / "math.tsv"),
        "chinese": chinese(folder / "问答.jsonl.zst"),
        "chats": chats(folder / "chats.parquet"),
        "code": code(folder / "code.csv.gz"),
        "evaluation": evaluation(folder / "eval.json"),
    }


def german(path: Path) -> Path:
    """Semicolons, decimal commas, line breaks in quoted fields; two answers are missing."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerow(["Nr", "Frage", "Antwort", "Note"])
        for i in range(30):
            town = TOWNS[i % 6]
            answer = f"Guten Tag,\ndie Rechnung {i} liegt im Konto; sie kostet {i},50 Euro."
            question = f"Wo finde ich in {town} meine Rechnung mit der Nummer {i}?"
            writer.writerow([i, question, answer if i > 1 else "", f"0,{i:02}"])
    return path


def tabs(path: Path) -> Path:
    rows = [f"What is {i} times {i + 3}, exactly?\tIt is {i * (i + 3)}." for i in range(30)]
    path.write_text("\n".join(["prompt\tcompletion", *rows, ""]), encoding="utf-8")
    return path


def chinese(path: Path) -> Path:
    rows = [
        {
            "指令": f"请介绍一下{city}的第{i}个公园。",
            "回答": f"{city}的公园很有名,共有{i * 7}棵树。",
        }
        for city in CITIES
        for i in range(5)
    ]
    path.write_bytes(pa.Codec("zstd").compress(_lines(rows), asbytes=True))
    return path


def chats(path: Path) -> Path:
    def turns(i: int) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": f"Where does otter number {i} live?"},
            {"role": "assistant", "content": f"By river {i}, under the old willow."},
            {"role": "user", "content": "And what does it eat there?"},
            {"role": "assistant", "content": f"Some {i + 2} fish a day, and a few crabs."},
        ]

    pq.write_table(pa.Table.from_pylist([{"n": i, "messages": turns(i)} for i in range(30)]), path)
    return path


def code(path: Path) -> Path:
    rows = ["question,answer,topic"]
    rows += [
        f'Write loop {i} in Go,"for i := 0; i < {i}; i++ {{\n\tf(i)\n}}",go' for i in range(30)
    ]
    path.write_bytes(gzip.compress("\n".join([*rows, ""]).encode()))
    return path


def evaluation(path: Path) -> Path:
    rows = [
        {
            "prompt": f"Explain rule {i} of a good letter.",
            "references": [f"Be kind, {i} times.", "Be"],
        }
        for i in range(12)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_lines(rows))
    return path


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
