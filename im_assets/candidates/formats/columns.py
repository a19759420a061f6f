"""alpaca, dolly, fields: a column for each field."""

from typing import Any

from im_assets.candidates.format_registry import data_format
from im_assets.candidates.rows import text, text_or_empty


@data_format(
    "alpaca", columns={"instruction": "instruction", "output": "output"}, optional=("input",)
)
def alpaca(row: dict[str, Any], needs_output: bool) -> dict[str, str]:
    """instruction, input and output, as in Stanford Alpaca."""
    fields = {"instruction": text(row, "instruction"), "input": text_or_empty(row, "input")}
    return fields | ({"output": text(row, "output")} if needs_output else {})


@data_format(
    "dolly", columns={"instruction": "instruction", "output": "response"}, optional=("context",)
)
def dolly(row: dict[str, Any], needs_output: bool) -> dict[str, str]:
    """instruction, context and response, as in databricks-dolly-15k."""
    fields = {"instruction": text(row, "instruction"), "input": text_or_empty(row, "context")}
    return fields | ({"output": text(row, "response")} if needs_output else {})


@data_format("fields", columns={}, optional=())
def mapped(row: dict[str, Any], fields: dict[str, str], needs_output: bool) -> dict[str, str]:
    """The columns that the source's ``fields`` map."""
    optional = ("input", "category")
    return {
        field: text_or_empty(row, column) if field in optional else text(row, column)
        for field, column in fields.items()
        if field != "output" or needs_output
    }
