"""The coefficients that all figures are made from: one file, each with its unit and its source.

``coefficients.json`` lies beside this module, since an image of the platform holds no docs. ``low``
and ``high`` are null as long as nobody has measured them: whatever needs them is then told as "not
measured".
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from im_assets.planning.scale.ranges import Range

FILE = Path(__file__).parent / "coefficients.json"
# Where a coefficient is from. derived: computed from what the source names.
Kind = Literal["measured", "read", "derived", "assumed"]
FIELDS = ("low", "high", "unit", "kind", "source")

# What the calculation reads, and in which unit it takes it.
UNITS: Mapping[str, str] = {
    "peak_a100": "TFLOP/s",
    "peak_h100": "TFLOP/s",
    "peak_h200": "TFLOP/s",
    "share_training_bf16": "of peak",
    "share_training_int8": "of peak",
    "share_training_nf4": "of peak",
    "share_forward_bf16": "of peak",
    "share_forward_int8": "of peak",
    "share_forward_nf4": "of peak",
    "share_embedding": "of peak",
    "share_small": "of peak",
    "cpu_training": "TFLOP/s",
    "cpu_forward": "TFLOP/s",
    "weight_bytes_bf16": "B/weight",
    "weight_bytes_int8": "B/weight",
    "weight_bytes_nf4": "B/weight",
    "activation_bytes_bf16": "B/(token, layer, unit)",
    "activation_bytes_int8": "B/(token, layer, unit)",
    "activation_bytes_nf4": "B/(token, layer, unit)",
    "checkpoint_bytes": "B/(token, layer, unit)",
    "memory_beside": "GiB",
    "run_seconds": "s/run",
    "scheduling_share": "of the time",
    "cleaning_seconds": "core s/row",
    "cleaning_growth": "exponent",
    "drawing_seconds": "core s/(row, set)",
    "choosing_seconds": "core s/row",
    "driver_bytes": "B/row",
    "text_share": "B/(B of text)",
    "score_bytes": "B/(row, indicator)",
    "embedding_bytes": "B/number",
    "loss_bytes": "B/loss",
    "adapter_files": "files/trial",
    "shard_tables": "tables/shard",
    "trial_commits": "commits/trial",
    "commit_seconds": "s/commit",
    "commit_conflicts": "conflicts/commit",
    "lake_write_seconds": "s/row",
    "partitions": "partitions",
}
MAY_BE_NOTHING = ("scheduling_share", "commit_conflicts")


class CoefficientError(ValueError):
    """A file of coefficients that cannot be used; says which field, and what is expected."""


@dataclass(frozen=True)
class Coefficient:
    """A named number. ``value``: None: nobody has measured it."""

    name: str
    value: Range | None
    unit: str
    kind: Kind
    source: str


class Coefficients(Mapping[str, Range | None]):
    """The values by name; ``all``: with their units and sources, in the file's order."""

    def __init__(self, found: Mapping[str, Coefficient]) -> None:
        self.all = dict(found)

    def __getitem__(self, name: str) -> Range | None:
        return self.all[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def unmeasured(self) -> list[str]:
        """Names of those that are null."""
        return [name for name, one in self.all.items() if one.value is None]

    def known(self, name: str) -> Range:
        """A value without which nothing can be told. Raises CoefficientError when it is null."""
        if (value := self[name]) is None:
            raise CoefficientError(f"{FILE}: {name}: null, and nothing can be told without it")
        return value


@cache
def coefficients() -> Coefficients:
    """Those of the project."""
    return read(FILE)


def read(path: Path) -> Coefficients:
    """The coefficients in a file.

    Raises:
        CoefficientError: it is not JSON, a coefficient is missing or unknown, or a field is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CoefficientError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise CoefficientError(f"{path}: expected an object with a coefficient a name")
    if missing := sorted(UNITS.keys() - content.keys()):
        raise CoefficientError(f"{path}: missing: {', '.join(missing)} (null where not measured)")
    if unknown := sorted(content.keys() - UNITS.keys()):
        raise CoefficientError(f"{path}: unknown: {', '.join(unknown)}; nothing reads it")
    return Coefficients({name: _one(path, name, fields) for name, fields in content.items()})


def _one(path: Path, name: str, fields: object) -> Coefficient:
    where = f"{path}: {name}"
    if not isinstance(fields, dict) or set(fields) != set(FIELDS):
        raise CoefficientError(f"{where}: expected the fields {', '.join(FIELDS)}, found {fields}")
    if fields["unit"] != UNITS[name]:
        raise CoefficientError(f"{where}.unit: {fields['unit']!r}; expected {UNITS[name]!r}")
    if fields["kind"] not in get_args(Kind):
        raise CoefficientError(
            f"{where}.kind: {fields['kind']!r}; expected one of {', '.join(get_args(Kind))}"
        )
    if not fields["source"]:
        raise CoefficientError(f"{where}.source: empty; where is the number from?")
    ends = fields["low"], fields["high"]
    if ends == (None, None):
        return Coefficient(name, None, fields["unit"], fields["kind"], fields["source"])
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise CoefficientError(f"{where}: low {ends[0]!r}, high {ends[1]!r}: two numbers, or null")
    if ends[0] <= 0 and name not in MAY_BE_NOTHING:
        raise CoefficientError(f"{where}.low: {ends[0]}; expected more than 0")
    try:
        value = Range(*map(float, ends))
    except ValueError as error:
        raise CoefficientError(f"{where}: {error}") from error
    return Coefficient(name, value, fields["unit"], fields["kind"], fields["source"])
