"""What goes into the repository of a service: rule files, promtool tests that pin when alerts fire, a dashboard.

The tests hold series of two stretches of a past, and for every predicted transition what `ALERTS` must be one
evaluation before it and at it. A `for` that is off by one step fails them.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sim.alerts.rulefile import Group, written_ms
from sim.alerts.rules import DEFAULT_INTERVAL_MS, Judgement, Verdict, judge
from sim.alerts.shipping import stretches
from sim.alerts.shipping.dashboard import dashboard
from sim.alerts.shipping.faster import sped_up
from sim.alerts.shipping.verify import as_yaml, self_contained, unit_test
from sim.alerts.states import Episode
from sim.errors import InputError
from sim.series import SeriesSet

MOST_EPISODES = 40


@dataclass(frozen=True)
class Test:
    """One file of promtool tests: which stretch, of which interval, how many assertions, and what is expected."""

    file: str
    stretch: str
    from_ms: int
    length_ms: int
    assertions: int
    expected: list[tuple[str, Episode]]


@dataclass
class Export:
    """The files to write, by path in the folder, and what is not in them."""

    files: dict[str, str] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def export(
    groups: Sequence[Group],
    series: SeriesSet,
    span_ms: tuple[int, int],
    source: str,
    speed: float = 1.0,
    progress: Callable[[str], None] = lambda what: None,
) -> Export:
    """Return what there is to ship of *groups*, with tests from *series*, for a service played *speed* times as fast.

    Raises:
        InputError: two groups share a name, or a length of time does not survive the speed.
    """
    made = Export()
    if twice := [name for name, n in Counter(group.name for group in groups).items() if n > 1]:
        raise InputError(
            f"the group {twice[0]!r} stands in two files: promtool and dashboards could not tell them apart"
        )
    shipped = list(groups) if speed == 1 else sped_up(groups, speed)
    made.files |= rule_files(shipped, speed)
    rules = [f"../{name}" for name in made.files]
    progress("judging the rules")
    judged = judge(groups, series, DEFAULT_INTERVAL_MS, span_ms=span_ms)
    for name, span in _stretches(judged, groups, series, span_ms):
        if span is None:
            made.left_out.append(_why_none(name))
            continue
        progress(f"predicting {name}")
        _add_tests(made, name, span, shipped, series, rules, speed, stretches.grid_ms(judged))
    made.files["dashboard.json"] = json.dumps(dashboard(shipped, f"Alerts of {source}"), indent=2) + "\n"
    made.files["README.md"] = readme(made, source, speed)
    return made


def rule_files(groups: Sequence[Group], speed: float) -> dict[str, str]:
    """Return one rule file for each file that *groups* came from; one that promtool takes as it is stays as it is."""
    files: dict[str, str] = {}
    for file in dict.fromkeys(group.file for group in groups):
        stem, number = Path(file).stem, 1
        while (name := f"rules/{stem}{'' if number == 1 else f'-{number}'}.yml") in files:
            number += 1
        text = Path(file).read_text(encoding="utf-8") if Path(file).is_file() else ""
        if speed != 1 or not _is_plain(text):
            text = as_yaml({"groups": [_group(group) for group in groups if group.file == file]})
        files[name] = text
    return files


def _is_plain(text: str) -> bool:
    documents = [one for one in yaml.safe_load_all(text) if one is not None]
    return len(documents) == 1 and "kind" not in documents[0]


def _group(group: Group) -> dict[str, Any]:
    made: dict[str, Any] = {"name": group.name}
    if group.interval_ms is not None:
        made["interval"] = written_ms(group.interval_ms)
    made["rules"] = []
    for rule in group.rules:
        entry: dict[str, Any] = {"record" if rule.records else "alert": rule.name, "expr": rule.text}
        for key, ms in (("for", rule.for_ms), ("keep_firing_for", rule.keep_firing_for_ms)):
            entry |= {key: written_ms(ms)} if ms else {}
        entry |= {key: dict(texts) for key in ("labels", "annotations") if (texts := getattr(rule, key))}
        made["rules"].append(entry)
    return made


def _stretches(
    judged: Sequence[Judgement], groups: Sequence[Group], series: SeriesSet, span_ms: tuple[int, int]
) -> list[tuple[str, tuple[int, int] | None]]:
    """Return a quiet stretch, and one around the first alert: as short as still lets it fire."""
    found = None
    fired = {one.rule.name for one in judged if one.fired}
    for before_ms in stretches.BEFORE_MS:
        found = stretches.incident(judged, span_ms, before_ms)
        if found is None or found[0] == span_ms[0]:
            break
        piece = stretches.cut(series, found, stretches.grid_ms(judged), 1.0)
        again = judge(groups, piece, DEFAULT_INTERVAL_MS) if len(piece) else []
        if fired & {one.rule.name for one in again if one.fired}:
            break
    return [("healthy", stretches.quiet(judged, span_ms)), ("incident", found)]


def _why_none(name: str) -> str:
    if name == "incident":
        return "no incident test: no alert fired in this past"
    return "no healthy test: some alert was firing all the time"


def _add_tests(
    made: Export,
    name: str,
    span: tuple[int, int],
    shipped: Sequence[Group],
    series: SeriesSet,
    rules: list[str],
    speed: float,
    step_ms: int,
) -> None:
    """Add the tests of one stretch, one file for each interval, for promtool evaluates all rules at the same."""
    try:
        piece = stretches.cut(series, span, step_ms, speed)
        judged = judge(shipped, piece, max(1, round(DEFAULT_INTERVAL_MS / speed)))
        intervals = sorted({one.interval_ms for one in judged})
        for interval_ms in intervals:
            file = f"tests/{name}-{written_ms(interval_ms)}.yml" if len(intervals) > 1 else f"tests/{name}.yml"
            _add_test(
                made, file, name, span, [one for one in judged if one.interval_ms == interval_ms], judged, piece, rules
            )
    except (ValueError, InputError) as error:
        made.left_out.append(f"no {name} test: {error}")


def _add_test(
    made: Export,
    file: str,
    name: str,
    span: tuple[int, int],
    own: list[Judgement],
    judged: Sequence[Judgement],
    piece: SeriesSet,
    rules: list[str],
) -> None:
    if failing := [one for one in judged if one.failed]:
        raise InputError(
            f"{failing[0].rule.name} fails in it ({failing[0].reason}), which promtool takes for a failed test"
        )
    elsewhere = {one.rule.name for one in judged if not one.rule.records and one.interval_ms != own[0].interval_ms}
    kept, left_out = self_contained([one for one in own if one.verdict == Verdict.JUDGED], judged)
    twice = [one.rule.name for one in kept if one.rule.name in elsewhere]
    left_out += [f"{name}: another alert at another interval has the same name" for name in twice]
    left_out += [f"{one.rule.name}: {one.verdict} ({one.reason})" for one in own if one.verdict != Verdict.JUDGED]
    made.left_out += [f"{file}: {line}" for line in left_out]
    kept = [one for one in kept if one.rule.name not in elsewhere]
    if all(one.rule.records for one in kept):
        return
    test, assertions = unit_test(kept, piece)
    test |= {"rule_files": rules, "group_eval_order": list(dict.fromkeys(one.rule.group for one in judged))}
    test["tests"][0] = {"name": f"{name}, from {written_ms(span[0])} of the past", **test["tests"][0]}
    made.files[file] = as_yaml(test)
    expected = [(one.rule.name, episode) for one in kept for episode in one.episodes]
    length_ms = int(kept[0].t_ms[-1])
    made.tests.append(Test(file, name, span[0], length_ms, assertions, sorted(expected, key=lambda e: e[1].pending_ms)))


def readme(made: Export, source: str, speed: float) -> str:
    """Return what the folder says of itself."""
    checks = ["promtool check rules rules/*.yml", *(["promtool test rules tests/*.yml"] if made.tests else [])]
    lines = [
        "# Alerts",
        "",
        f"Made by `blowout alerts export` from {source}. Change the rules at their source and export",
    ]
    lines += ["again.", "", "```sh", *checks, "```", ""]
    if speed != 1:
        lines += [
            f"**For a service played {speed:g} times as fast as real time.** Windows, offsets, `for`",
            f"and intervals are divided by {speed:g}; so is `rate`, to be of model seconds. Scrape and evaluate",
            f"{speed:g} times as often. Prometheus' five minutes of lookback stay as they are. Not for production.",
            "",
        ]
    lines += [
        "- `rules/`: load with `rule_files`.",
        "- `tests/`: what each alert must be one evaluation before each change and at it, on series of a past.",
        "- `dashboard.json`: import it into Grafana. A row a severity, a panel a rule, its threshold as a line.",
    ]
    for test in made.tests:
        lines += ["", f"## `{test.file}`", "", f"{test.assertions} assertions in {written_ms(test.length_ms)}, from "]
        lines[-1] += f"{written_ms(test.from_ms)} of the past on. Times below are of the test."
        lines += ["", *_expected(test)]
    if made.left_out:
        lines += ["", "## Not tested", "", *(f"- {line}" for line in made.left_out)]
    return "\n".join(lines) + "\n"


def _expected(test: Test) -> list[str]:
    if not test.expected:
        return ["No alert is active."]
    rows = [_row(name, episode) for name, episode in test.expected[:MOST_EPISODES]]
    more = len(test.expected) - len(rows)
    head = ["| alert | pending | firing | over |", "|---|---|---|---|"]
    return [*head, *rows, *(["", f"And {more} more."] if more else [])]


def _row(name: str, episode: Episode) -> str:
    times = (episode.pending_ms, episode.firing_ms, episode.ended_ms)
    return f"| {name} | " + " | ".join("" if t is None else written_ms(t) for t in times) + " |"


def write(made: Export, folder: Path) -> None:
    """Write the files into *folder*.

    Raises:
        InputError: it holds files already, or cannot be written.
    """
    try:
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(f"{folder}: expected a folder that is new or empty")
        for name, text in made.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
