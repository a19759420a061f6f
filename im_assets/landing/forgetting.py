"""Erasing rows of landed files: the file is kept without them, under the hash of what is left.

The ledger still knows the file by the content that landed, so that landing it again does nothing.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from im_assets.candidates.content import identity_of
from im_assets.candidates.files import Fault, read_records
from im_assets.candidates.reading import read_source
from im_assets.landing.ledger import ADMITTED, entries, record, source_of, store_of
from im_assets.landing.store import INCOMING, Store
from im_resources.study import DataSource, Study
from im_resources.warehouse import Warehouse


def forget_landed(ids: Collection[str], study: Study, warehouse: Warehouse) -> list[str]:
    """Erase these examples from the landed files; the names of the files that held one.

    What is left is JSON lines, each row in the line of its number, so that it is still found where
    the catalog says. Repeatable, and killed at any moment nothing else is lost.
    """
    store, changed = Store(store_of(study)), []
    with store.turn():
        for entry in entries(warehouse, status=ADMITTED):
            source = source_of(entry, study)
            rows, _ = read_source(entry.target, source)
            hit = {int(r["line"]) for r in rows.to_dict("records") if identity_of(r) in ids}
            if not hit:
                continue
            old = store.root / entry.file
            text = _without(old, hit, source)
            name = f"{hashlib.sha256(text).hexdigest()}.jsonl"
            copy = store.root / INCOMING / name
            copy.write_bytes(text)
            store.publish(copy, name)
            record(warehouse, replace(entry, file=name))
            if not any(other.file == old.name for other in entries(warehouse)):
                old.unlink(missing_ok=True)
            changed.append(entry.name)
    return changed


def _without(path: Path, lines: Collection[int], source: DataSource) -> bytes:
    """The file's other rows, as JSON lines with their numbers; what is no row stays none."""
    kept: dict[int, str] = {}
    for line, row in read_records(path, None, source.max_line_mb, source.delimiter):
        if line in lines:
            continue
        kept[line] = f"unreadable: {row.reason}" if isinstance(row, Fault) else _json(row)
    numbered = (kept.get(number, "") for number in range(1, max(kept, default=0) + 1))
    return "".join(f"{line}\n" for line in numbered).encode("utf-8", "surrogateescape")


def _json(row: object) -> str:
    return json.dumps(row, ensure_ascii=False, default=str).replace("\n", " ")
