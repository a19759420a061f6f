"""YAML as profiles have it: PyYAML's safe loader without what it takes silently or never ends at.

A key that is given twice in one block is refused (the later value would win), and so is what is
much larger than any profile: in depth, in digits, or in what its aliases come to when written out.
"""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from im_resources.study.places import ProfileError

MAX_BYTES = 200_000
MAX_DEPTH = 30
MAX_VALUES = 10_000  # with aliases written out
MAX_DIGITS = 40


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, with dates as text.

    Raises ProfileError: unreadable, not YAML, a key given twice, or too large; names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: can't be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise ProfileError(f"{path}: over {MAX_BYTES // 1000} kB, larger than any profile")
    try:
        loader = _ProfileLoader(content.decode("utf-8-sig"))
        loader.name = path.name  # in the messages' marks
        return loader.get_single_data()
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not a YAML file in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not a YAML file that can be used: {error}") from error


class _ProfileLoader(yaml.SafeLoader):
    """Every fault of a text is a YAMLError with its line."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # values that a node comes to, by its id

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        mark = self.peek_event().start_mark
        before, self._depth = self._values, self._depth + 1
        if self._depth > MAX_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise ConstructorError(None, None, "an alias inside of what it stands for", mark)
        self._values += self._sizes[id(node)] if alias else 1
        if self._values > MAX_VALUES:
            said = f"more than {MAX_VALUES} values, with aliases written out"
            raise ConstructorError(None, None, said, mark)
        if not alias:
            self._sizes[id(node)] = self._values - before
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Node] = {}
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                before = first.setdefault((key.tag, key.value), key)
                if before is not key:
                    raise ConstructorError(
                        f"the key {key.value[:100]!r} is given twice, first", before.start_mark,
                        "and then", key.start_mark,
                    )  # fmt: skip
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and isinstance(node, ScalarNode) and len(node.value) > MAX_DIGITS:
            said = f"a number of {len(node.value)} characters, at most {MAX_DIGITS} are read"
            raise ConstructorError(None, None, said, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            kind = node.tag.rpartition(":")[2]
            said = f"{str(node.value)[:100]!r} is no {kind}"
            raise ConstructorError(None, None, said, node.start_mark) from error


# 2024-01-31 is text here: no setting is a date, and some names and revisions look like one.
_ProfileLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
