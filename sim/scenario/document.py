"""YAML in and out, in one dialect: plain values that still know their line, and values written so that they read back.

The dialect is YAML 1.2 where YAML 1.1 surprises: ``on`` and ``yes`` are words, ``1:30`` is a text, ``10e6`` is a
number, keys are always texts, and no key stands twice. ``none`` is no value, like ``null``.
"""

import contextlib
import re
from typing import Any

import yaml

from sim.errors import ScenarioError
from sim.words import show

_HUGE = 1e100
_MERGE = "<<"
_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "null": (r"~|null|Null|NULL|none|None|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    "float": (r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either dialect would read as something else than a text."""


for _kind, (_pattern, _first) in _PLAIN.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})$"), _first)


def write(value: Any) -> str:
    """Return *value* as YAML in the order of its keys, one key a line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _scalar(text: str, kind: str) -> str | float | bool | None:
    """Return the value that *text* is; a number that nobody can mean (1__0, a hundred digits) stays a text."""
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" | "float":
            with contextlib.suppress(ValueError):
                number = int(text) if kind == "int" else float(text)
                return number if abs(number) < _HUGE else text
    return text


class Document:
    """A YAML text as plain values, each of which can be found on its line again.

    Raises:
        ScenarioError: not YAML, a key that stands twice, or something plain values cannot hold.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._open: set[int] = set()
        try:
            self._root = _Loader(text).get_single_node()
            self.value: Any = None if self._root is None else self._value(self._root)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ScenarioError(f"{source}:{line}: not YAML: a character that cannot be printed") from None
        except yaml.MarkedYAMLError as error:
            raise self._fault(error.problem_mark or error.context_mark, f"not YAML: {error.problem}") from None
        except RecursionError:
            raise ScenarioError(f"{source}: not a scenario: nested too deep") from None

    def line(self, path: tuple[str | int, ...]) -> int:
        """Return the line of the key or entry at *path*, or of the nearest thing around it that was written."""
        node, mark = self._root, getattr(self._root, "start_mark", None)
        for key in path:
            if isinstance(node, yaml.MappingNode):
                found = [pair for pair in self._pairs(node) if pair[0].value == key]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                found = [(node.value[key], node.value[key])]
            else:
                break
            if not found:
                break
            (at, node), *_ = found
            mark = at.start_mark
        return mark.line + 1 if mark else 1

    def _value(self, node: yaml.Node) -> Any:
        if id(node) in self._open:
            raise self._fault(node.start_mark, "expected a value, got an alias of what it stands in")
        self._open.add(id(node))
        try:
            if node.tag.removeprefix(_TAG) not in (*_PLAIN, "str", "seq", "map"):
                raise self._fault(node.start_mark, f"expected a plain value, got the tag {node.tag}")
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item) for item in node.value]
            return _scalar(str(node.value), node.tag.removeprefix(_TAG))
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key.start_mark, "expected a plain key, got a list or a mapping")
            if key.value in lines:
                said = f"the key {show(key.value)} stands twice; the first is on line {lines[key.value]}"
                raise self._fault(key.start_mark, said)
            lines[key.value] = key.start_mark.line + 1
        return {key.value: self._value(value) for key, value in self._pairs(node)}

    def _pairs(self, node: yaml.MappingNode) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        """Return keys and values, first those that ``<<`` brings and *node* does not say itself."""
        own = [pair for pair in node.value if pair[0].value != _MERGE]
        taken = {key.value for key, _ in own}
        brought = []
        for _, value in (pair for pair in node.value if pair[0].value == _MERGE):
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(other, yaml.MappingNode) or id(other) in self._open:
                    raise self._fault(value.start_mark, f"expected a mapping, or a list of them, behind {_MERGE}")
                brought += [pair for pair in self._pairs(other) if pair[0].value not in taken]
                taken |= {key.value for key, _ in brought}
        return brought + own

    def _fault(self, mark: yaml.Mark | None, problem: str) -> ScenarioError:
        hint = " (indent with spaces)" if "'\\t'" in problem else ""
        return ScenarioError(f"{self.source}:{mark.line + 1 if mark else 1}: {problem}{hint}")
