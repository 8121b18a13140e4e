"""YAML as a person means it: a key given twice is an error, and so is what would take for ever to read."""

from collections import Counter
from collections.abc import Hashable
from math import inf
from typing import Any

import yaml

MOST_VALUES = 100_000


class StrictLoader(yaml.SafeLoader):
    """Raises YAMLError for a key given twice, values nested too deeply, and more of them than MOST_VALUES."""

    def get_single_node(self) -> yaml.Node | None:
        try:
            return super().get_single_node()
        except RecursionError:
            raise yaml.composer.ComposerError(None, None, "values are nested too deeply", self.get_mark()) from None

    def construct_document(self, node: Any) -> Any:
        try:
            if expanded(node, {}) > MOST_VALUES:
                problem = f"more than {MOST_VALUES:,} values, counting those that aliases repeat"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return super().construct_document(node)
        except RecursionError:
            problem = "values are nested too deeply"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        counts = Counter(key for key in keys if isinstance(key, Hashable))
        twice = sorted(str(key) for key, count in counts.items() if count > 1)
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def expanded(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node has once each alias is filled in; without end where it holds itself."""
    if id(node) not in known:
        known[id(node)] = inf
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for item in below for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(expanded(part, known) for part in parts)
    return known[id(node)]


def what_is_wrong(error: Exception) -> str:
    """In one line, with its place where that is known."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
