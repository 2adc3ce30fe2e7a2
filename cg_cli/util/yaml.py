"""YAML that somebody else may have written: plain values only, of a bounded size, number and depth.

Aliases count as what they stand for, before anything is made of them: ten lines of them can mean a billion values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cg_cli.util.bounded import read_bounded
from cg_cli.util.text import one_line

MAX_BYTES = 1 << 20
MAX_NODES = 10_000  # keys and values
MAX_DEPTH = 50
MAX_DIGITS = 100  # of a number
SURROGATE = re.compile("[\ud800-\udfff]")


class YamlError(ValueError):
    """No YAML, or more than a settings file holds: one line, and the number of the file's line where that is known."""

    def __init__(self, problem: str, line: int | None = None):
        super().__init__(problem)
        self.line = line


def read_yaml(path: Path) -> tuple[Any, Any]:
    """``parse_yaml`` of a file. OSError if it cannot be read, is no regular file, or larger than MAX_BYTES."""
    return parse_yaml(read_bounded(path, MAX_BYTES))


def parse_yaml(text: str | bytes) -> tuple[Any, Any]:
    """The value in ``text`` (bytes are UTF-8), and its node, which knows lines and keys that are there twice; None and
    None for none.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        YamlError: anything else that is wrong with it.
    """
    text = text if isinstance(text, str) else text.decode("utf-8")
    if len(text) > MAX_BYTES:
        raise YamlError(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return None if root is None else loader.construct_document(root), root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(one_line(error.problem or error.context or "not YAML"), mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise YamlError(one_line(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # A tag such as !!int or !!timestamp on something else.
        raise YamlError(f"a value is not what its tag says ({type(error).__name__})") from error


def values(root: yaml.MappingNode) -> list[Any]:
    """The values of a mapping's node, in order, also those of keys that are there twice."""
    loader = _Loader("")
    return [loader.construct_object(value, deep=True) for _, value in root.value]


class _Loader(yaml.SafeLoader):
    """SafeLoader that gives up on a node as soon as it, with what its aliases stand for, is too many or too deep."""

    def __init__(self, text: str):
        super().__init__(text)
        self._open = self._count = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of a finished node: how many nodes it means, and how deep

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        self._open += 1
        self._count += 1
        self._check(self._count, self._open, mark)
        node: Any = super().compose_node(parent, index)
        self._open -= 1
        if id(node) not in self._sizes:
            if isinstance(node, yaml.ScalarNode):
                self._check_scalar(node)
            elif node.end_mark is None:  # not finished
                raise yaml.MarkedYAMLError(problem="an alias to what it is a part of", problem_mark=mark)
            inner = [self._sizes[id(child)] for child in _children(node)]
            total, depth = 1 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)
            self._check(total, depth, mark)
            self._sizes[id(node)] = total, depth
        return node

    def _check(self, nodes: int, depth: int, mark: Any) -> None:
        if nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_NODES:,} keys and values", problem_mark=mark)
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        numeric = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if numeric and len(node.value) > MAX_DIGITS:
            problem = f"a number of more than {MAX_DIGITS} digits"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if SURROGATE.search(node.value):
            raise yaml.MarkedYAMLError(problem="half of a surrogate pair", problem_mark=node.start_mark)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
