"""Words that every message shares: how a value is named, and which known name was probably meant."""

import difflib
from collections.abc import Iterable
from typing import Any


def show(value: Any) -> str:
    """Return *value* as a message names it: YAML's words, quotes around a text, at most 60 characters of it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.12g}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
    return str(value)


def count(number: int, what: str) -> str:
    """Return ``1 seed`` or ``1,000 seeds``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'replicas'?`` for the nearest of *known*, or nothing where none is near.

    A name cut short (``rate`` for ``rate_per_s``) is near however long the rest of it.
    """
    known = [name for name in known if name != word]
    longer = [name for name in known if name.startswith(f"{word}_")]
    near = longer or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def not_among(word: str, kind: str, known: Iterable[str]) -> str:
    """Return that there is no *kind* called *word*, with the nearest of *known* or else all of them."""
    known = list(known)
    return f"no {kind} {word!r}{did_you_mean(word, known) or ', expected one of ' + ', '.join(known)}"
