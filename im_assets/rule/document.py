"""The rule on disk: a strict JSON document, which any language reads and no reader executes.

Floats are written with the shortest digits that read back to the same value, so a rule predicts
identically after a round trip. The same text travels in the ``document`` column of the coefficient
table, so the warehouse alone is enough to load a rule.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from im_assets.rule.model import Coefficient, Rule

RULE_FILE = "quality_rule.json"  # in the folder of each study
FORMAT = "instruction-mining/rule"
# 1 held its warnings as sentences, without their kind; 2 did not say with which indicators and
# models it was fitted; 3 read every indicator as it is, and had a t and p of each term; in 4 every
# term was a straight line.
VERSION = 5
READABLE = (1, 2, 3, 4, 5)

TERM_NUMBERS = [f for f in Coefficient.model_fields if f != "name"]
RULE_NUMBERS = [
    "r2",
    "adj_r2",
    "f",
    "aic",
    "bic",
    "residual_std_error",
    "loo_spearman",
    "loo_spearman_low",
    "loo_spearman_high",
    "loo_spearman_fixed",
    "loo_rmse",
]


def to_json(rule: Rule) -> str:
    """The rule as JSON text; undefined numbers are null."""
    document = {"format": FORMAT, "version": VERSION, "rule": rule.model_dump(mode="json")}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def from_json(text: str) -> Rule:
    """The rule of a document written by `to_json`.

    Raises ValueError when the text is not JSON (NaN and Infinity are not), not a rule document, or
    of another version.
    """
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON document: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"not a rule document: expected `format` to be {FORMAT!r}")
    if document.get("version") not in READABLE:
        raise ValueError(
            f"a rule document of version {document.get('version')!r}; this platform reads "
            f"{', '.join(map(str, READABLE))}"
        )
    try:
        rule = document.get("rule")
        return Rule.model_validate(_without_tests(rule) if document["version"] < 4 else rule)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise ValueError(f"a damaged rule document: {'; '.join(faults)}") from error


def _without_tests(rule: Any) -> Any:
    """The rule without the t and p of its terms and of its whole, which documents had before
    version 4: after a choice by the same losses they are no tests."""
    if not isinstance(rule, dict):
        return rule

    def term(found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        return {key: value for key, value in found.items() if key not in ("t", "p")}

    kept = {key: value for key, value in rule.items() if key != "f_p"}
    if "constant" in kept:
        kept["constant"] = term(kept["constant"])
    if isinstance(kept.get("coefficients"), list):
        kept["coefficients"] = list(map(term, kept["coefficients"]))
    return kept


def _refuse(constant: str) -> Any:
    raise ValueError(f"not strict JSON: {constant}")


def write_rule(rule: Rule, path: Path) -> None:
    """Write the document to ``path`` at once: a reader sees the old rule or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(to_json(rule) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_rule(path: Path) -> Rule:
    """The rule in the file at ``path``. Raises OSError, or ValueError as `from_json` does."""
    return from_json(path.read_text(encoding="utf-8"))


def coefficient_table(rule: Rule) -> pd.DataFrame:
    """One row a term, the constant first; the rule's own numbers and document repeat in each."""
    rows = []
    for term in (rule.constant, *rule.terms):
        row: dict[str, Any] = {"term": term.name, **term.model_dump(include=set(TERM_NUMBERS))}
        row |= {"source": rule.source, "n": rule.n, **rule.model_dump(include=set(RULE_NUMBERS))}
        rows.append(row | {"formula": rule.formula, "rule_id": rule.id, "document": to_json(rule)})
    table = pd.DataFrame(
        rows,
        columns=[
            "term",
            *TERM_NUMBERS,
            "source",
            "n",
            *RULE_NUMBERS,
            "formula",
            "rule_id",
            "document",
        ],
    )
    # A column without any number would else be of no type, and the warehouse would guess one.
    return table.astype({"n": "Int64"} | dict.fromkeys([*TERM_NUMBERS, *RULE_NUMBERS], "float64"))


def load_rule(frame: pd.DataFrame) -> Rule:
    """The rule in a table made by `coefficient_table`. Raises ValueError when it holds not one."""
    documents = list(frame["document"].unique()) if "document" in frame else []
    if len(documents) != 1:
        raise ValueError(
            f"expected a quality_rule table with one rule document, found {len(documents)}; "
            "materialize quality_rule again"
        )
    return from_json(documents[0])
