"""One line of the Prometheus text format: what a sample, its labels and its numbers look like.

The grammar is small: the text format 0.0.4 of the Prometheus documentation ("Exposition formats"), plus OpenMetrics'
exemplars, which are skipped, and the labels that `promtool tsdb dump` writes with the name among them.
"""

import re

EXPECTED = 'expected a Prometheus sample like name{label="value"} 1.5'

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_INSIDE = r"\{(?P<labels>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\}"
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|$)')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

SERIES = re.compile(rf"(?P<name>{_NAME})?\s*(?:{_INSIDE})?")
SAMPLE = re.compile(
    rf"(?P<name>{_NAME})\s*(?:{_INSIDE})?\s+(?P<value>\S+)(?:\s+(?P<time>[-+]?[0-9.eE+]+))?\s*(?:#\s*\{{.*)?$"
)


def labels(text: str) -> dict[str, str] | None:
    """Return the labels that stand between braces, or None where these are none."""
    found: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = _LABEL.match(text, at)
        if match is None or match[1] in found:
            return None
        found[match[1]] = re.sub(r"\\[\\\"n]", lambda escape: _ESCAPES[escape[0]], match[2])
        at = match.end()
    return found


def number(text: str) -> float | None:
    """Return a value (``1.5``, ``+Inf``, ``NaN``), or None where it is none."""
    try:
        return float(text.replace("Inf", "inf")) if "_" not in text else None
    except ValueError:
        return None


def shown(line: str) -> str:
    """Return *line* as a message shows it: at most 60 characters."""
    return line if len(line) <= 60 else line[:57] + "..."
