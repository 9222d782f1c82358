"""``--set KEY=VALUE`` and ``--vary KEY=VALUES``: what options change in a scenario, and what they make pointless there.

A setting that is set no longer varies, nor does what a trace replaces; claims about points that are then not played
fall away. The user is told of both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim import claims
from sim.errors import ScenarioError
from sim.scenario.document import Document
from sim.scenario.models import Scenario
from sim.scenario.paths import Keys, get, long_form, put, resolve

_TRACE = ("workload", "trace")


@dataclass(frozen=True)
class Option:
    """One ``--set path=value`` or ``--vary path=values``, which a message names in place of a line."""

    text: str
    keys: Keys


def override(tree: Any, overrides: Sequence[str]) -> tuple[Any, list[Option], list[str]]:
    """Return *tree*, a scenario in its long form, with the *overrides* in place, those, and what no longer varies.

    Raises:
        ScenarioError: an option that cannot be read, or that names no setting.
    """
    options = []
    still: list[str] = []
    for text in overrides:
        name = f"--set {text}"
        path, equals, written = text.partition("=")
        if not equals or not path.strip():
            raise ScenarioError(f"{name}: expected KEY=VALUE, such as workload.rate_per_s=7")
        try:
            keys = resolve(path.strip(), tree)
        except ValueError as error:
            raise ScenarioError(f"{name}: {error}") from None
        try:
            value = Document(written, name).value
        except ScenarioError as error:
            raise ScenarioError(str(error).replace(f"{name}:1:", f"{name}:", 1)) from None
        tree = long_form(put(tree, keys, value))
        options.append(Option(name, keys))
        sweep = get(tree, ("vary",))
        if isinstance(sweep, dict) and (overruled := [varied for varied in sweep if _overrules(keys, varied, tree)]):
            tree = put(tree, ("vary",), {varied: sweep[varied] for varied in sweep if varied not in overruled})
            still += overruled
    return tree, options, still


def vary(tree: Any, swept: Mapping[str, Sequence[Any]]) -> tuple[Any, list[Option]]:
    """Return *tree*, a scenario in its long form, with the values of *swept* (path -> values) in its `vary`, and those.

    They take the place of the file's own values for that setting, however its path is written.

    Raises:
        ScenarioError: a path that names no setting, or one that another has named already.
    """
    options: list[Option] = []
    taken: list[Keys] = []
    for path, values in swept.items():
        name = f"--vary {path}"
        try:
            keys = resolve(path, tree)
        except ValueError as error:
            raise ScenarioError(f"{name}: {error}") from None
        if keys in taken:
            raise ScenarioError(f"{name}: expected each setting once, got {'.'.join(map(str, keys))} again")
        taken.append(keys)
        sweep = get(tree, ("vary",))
        kept = {old: sweep[old] for old in sweep if not _same(keys, old, tree)} if isinstance(sweep, dict) else {}
        tree = put(tree, ("vary",), {**kept, path: list(values)})
        options.append(Option(name, ("vary", path)))
    return tree, options


def _same(keys: Keys, path: str, tree: Any) -> bool:
    try:
        return resolve(path, tree) == keys
    except ValueError:
        return False  # the checks will say so


def _overrules(keys: Keys, varied: str, tree: Any) -> bool:
    """Return whether setting *keys* settles the *varied* path: the same setting, or one that a trace replaces."""
    try:
        other = resolve(varied, tree)
    except ValueError:
        return False  # the checks will say so
    both = min(len(keys), len(other))
    return keys[:both] == other[:both] or (keys[:2] == _TRACE and bool(get(tree, _TRACE)) and replaced_by_trace(other))


def replaced_by_trace(keys: Keys) -> bool:
    """Return whether *keys* say what a trace says in their place: who comes, when, and with how many tokens."""
    match keys:
        case ("workload", "rate_per_s" | "arrivals" | "sessions", *_):
            return True
        case ("workload", "cohorts", _, "prompt_tokens" | "output_tokens", *_):
            return True
    return False


def lost_claims(scenario: Scenario, points: Sequence[Mapping[str, Any]], options: Sequence[Option]) -> list[str]:
    """Return the claims of the file about other points than *points*, which *options* have changed."""
    asked = [option.keys[1:] for option in options if option.keys[0] == "claims"]
    return [
        name
        for name, text in scenario.claims.items()
        if () not in asked and (name,) not in asked and not _has_points(text, points)
    ]


def _has_points(text: str, points: Sequence[Mapping[str, Any]]) -> bool:
    try:
        metrics = claims.parse(text).metrics
    except ScenarioError:
        return True  # the checks will say what is wrong with it
    if any(not index for _, index in metrics):
        return True  # it names no point: it was not lost, and the checks will ask for one where there are several
    try:
        for metric, index in metrics:
            claims.point_of(metric, index, points)
    except ScenarioError:
        return False
    return True


def left_out(still: Sequence[str], lost: Sequence[str]) -> str:
    """Return what options have taken away: sweeps over settings that are *still* now, and claims that are *lost*."""
    parts = [f"the sweep over {', '.join(still)}"] if still else []
    if lost:
        whose = "its points" if still else "points that are not played"
        parts.append(f"{len(lost)} claim{'s' * (len(lost) > 1)} about {whose} ({', '.join(lost)})")
    return f"left out: {', and '.join(parts)}"
