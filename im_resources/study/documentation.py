"""``docs/settings.md``: every setting of a profile, written from the schema's own descriptions.

``python -m im_resources.study.documentation`` writes the page; with ``--check`` it compares, and
ends with 1 when the page is not what the settings say (CI does).
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from im_resources.study.places import PROJECT_ROOT
from im_resources.study.schema import Name, Settings, Study

PAGE = PROJECT_ROOT / "docs" / "settings.md"

INTRODUCTION = """\
<!-- Written by `make settings` from the descriptions in im_resources/study/schema/. -->

# Settings

A study is one YAML file, its *profile*, which `IM_PROFILE` names: one in `profiles/`, or a path to
one ([data.md](data.md)); `make new-study` writes one for your own files.
Only what differs from the defaults has to be given; with `extends`, only what differs from another
profile (a name in `profiles/`, or a path). A block keeps the keys that are not given there, and a
key that is given replaces the whole value.

```yaml
extends: demo
name: mine                        # its results lie in var/mine/
data:
  candidates:
    support: {path: /data/support.jsonl.gz}
    tickets: {path: /data/tickets.csv, format: fields,
              fields: {instruction: subject, output: answer}}
mixtures: {seeds: 32, size: 100}
finetuning:
  learning_rate: 1.0e-3
```

A misspelt setting or a wrong value stops with a message that names the field, the value, and what
would do. Paths are relative to the project, and `${VARIABLES}` in them expand. A setting marked
**required** has no default; `–` is a setting that is left out by default.
"""

GPU = """\
## The resource `gpu`

How a run uses its machine is no setting of the study: it is the configuration of the resource
`gpu`, given in the launchpad of the UI or in a run's `run_config`
(`resources: {gpu: {config: {device: cpu}}}`).
"""

_BOUNDS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}"}
_NAME = TypeAdapter(Name).json_schema()["pattern"]
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any"}


def settings_page() -> str:
    """The page as Markdown: a section a block, in the order of the profile; then the GPU's."""
    from im_resources.gpu import GpuResource  # imports Dagster, which reading a profile need not

    places = dict(_places(Study, ""))
    blocks = [(f"## `{name}`", kind) for name, kind in _blocks(Study) if kind in places]
    parts = [INTRODUCTION, _section("## The profile", Study, places)]
    for title, block in blocks:
        parts.append(_section(title, block, places))
        parts += [
            _section("### " + ", ".join(f"`{place}`" for place in places[kind]), kind, places)
            for kind in places
            if kind is not block and places[kind][0].startswith(places[block][0] + ".")
        ]
    parts += [GPU, _table(GpuResource.model_fields, places)]
    return "\n".join(parts)


def main() -> int:
    """Write or check the page; 1 when it was to be checked and differs."""
    parser = argparse.ArgumentParser(prog="python -m im_resources.study.documentation")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    text = settings_page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    name = PAGE.relative_to(PROJECT_ROOT)
    print(f"{name} is not what the settings say; write it with: make settings", file=sys.stderr)
    return 1


def _blocks(kind: type[BaseModel]) -> Iterator[tuple[str, type[Settings]]]:
    """The blocks of settings that the fields of ``kind`` hold, each with its place below it."""
    for name, field in kind.model_fields.items():
        for inside, suffix in _inside(field.annotation):
            yield name + suffix, inside


def _inside(annotation: Any, suffix: str = "") -> Iterator[tuple[type[Settings], str]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation, suffix
    named = get_origin(annotation) is dict
    for part in get_args(annotation):
        yield from _inside(part, ".<name>" if named else suffix)


def _places(kind: type[BaseModel], above: str) -> Iterator[tuple[type[Settings], list[str]]]:
    """Each block of settings below ``kind``, outermost first, with all places it is used in."""
    found: dict[type[Settings], list[str]] = {}
    for name, inside in _blocks(kind):
        found.setdefault(inside, []).append(above + name)
        for deeper, places in _places(inside, f"{above}{name}."):
            found.setdefault(deeper, []).extend(places)
    yield from found.items()


def _section(title: str, kind: type[Settings], places: Mapping[type[Settings], list[str]]) -> str:
    about = " ".join((kind.__doc__ or "").split())
    return f"{title}\n\n{about}\n\n{_table(kind.model_fields, places)}"


def _table(fields: Mapping[str, FieldInfo], places: Mapping[type[Settings], list[str]]) -> str:
    rows = [
        [
            f"`{name}`",
            readable(field.annotation, field.metadata),
            _default(field),
            " ".join((field.description or "").split()),
        ]
        for name, field in fields.items()
    ]
    head = ["field", "type", "default", "what it is"]
    lines = [[cell.replace("|", "\\|") for cell in row] for row in [head, ["---"] * 4, *rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def readable(annotation: Any, metadata: Any = ()) -> str:
    """A type in words: ``whole number > 0``, ``list of text``, the choices of a Literal."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, *more = arguments
        return readable(kind, [*more, *metadata])
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if kind is not type(None)]
        return ", or ".join(readable(kind, metadata) for kind in kinds)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (tuple, list):
        return "list of " + re.sub(r"^((whole )?number|name|block)", r"\1s", readable(arguments[0]))
    if origin is dict:
        return f"{readable(arguments[0])}: {readable(arguments[1])}, …"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    constraints = [m for given in metadata for m in getattr(given, "metadata", [given])]
    if any(getattr(constraint, "pattern", None) == _NAME for constraint in constraints):
        return "name"
    word = _WORDS.get(annotation) or getattr(annotation, "__name__", str(annotation))
    return f"{word} {_bounds(constraints)}".strip()


def _bounds(constraints: Sequence[Any]) -> str:
    return " and ".join(
        words.format(f"{getattr(constraint, bound):,}")
        for constraint in constraints
        for bound, words in _BOUNDS.items()
        if getattr(constraint, bound, None) is not None
    )


def _default(field: FieldInfo) -> str:
    """A default as it would stand in a profile."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "its defaults"
    if value in (None, PydanticUndefined, "", {}, ()):
        return "–"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """One line of YAML."""
    plain = _plain(value)
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_defaults=True)
        # The short form of a block whose options are left out (`rule: rule`).
        return next(iter(given.values())) if len(given) == 1 else given
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


if __name__ == "__main__":
    sys.exit(main())
