"""Whether a real Prometheus beside a load test says of the rules what we say."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.prometheus import Disagreement, Prometheus, Target, disagreements
from loadtest.scrape import JOB, instance_of
from sim.alerts.pages import Pages
from sim.alerts.past import open_pasts
from sim.alerts.rulefile import Group, Rule
from sim.alerts.rules import DEFAULT_INTERVAL_MS, judge
from sim.results import Run, read_json, write_json
from sim.telemetry.scraper import GATEWAY
from sim.words import count

FOLDER = "prometheus"
KEPT = "prometheus.json"


@contextmanager
def beside(
    program: str | None,
    folder: Path,
    pages: Sequence[str],
    groups: Sequence[Group],
    scrape_s: float,
    speed: float = 1.0,
) -> Iterator[Prometheus | None]:
    """Let *program*, if there is one, scrape *pages* and judge *groups* until the end; its data is kept in *folder*.

    *scrape_s* and the rules are in model seconds; at *speed*, so many are a wall second, and all are divided for it.
    """
    if program is None:
        yield None
        return
    targets = [Target(url, {"job": JOB, "instance": instance_of(url)}) for url in pages]
    home = folder / FOLDER
    home.mkdir()
    every_s = DEFAULT_INTERVAL_MS / 1000
    with Prometheus(program, home, targets, groups, scrape_s / speed, every_s / speed, speed) as real:
        yield real


def keep(real: Prometheus, folder: Path) -> None:
    """Put down what *real* saw fire and become pending (Unix time, seconds), and which rules it could not evaluate."""
    found = {state: _spans_s(real.pages(state)) for state in ("firing", "pending")}
    write_json(folder / KEPT, {**found, "unhealthy": real.unhealthy()})


@dataclass(frozen=True)
class Agreement:
    """One repeat: where the two disagree, which rules failed there, how many alerts were held, and which were not.

    *firing_s* and *pending_s* say when the real one saw each rule begin, seconds since the start.
    """

    name: str
    compared: int
    left_out: list[str]
    disagreements: list[Disagreement]
    unhealthy: dict[str, str]
    firing_s: dict[str, list[float]]
    pending_s: dict[str, list[float]]

    @property
    def holds(self) -> bool:
        """Whether they say the same."""
        return not self.disagreements and not self.unhealthy

    @property
    def as_json(self) -> dict[str, Any]:
        """Everything for programs."""
        return {**vars(self), "disagreements": [vars(one) for one in self.disagreements], "holds": self.holds}


def agreements(run: Run, groups: Sequence[Group]) -> list[Agreement]:
    """Return for every repeat of *run* beside which a real Prometheus ran whether it agrees with us.

    Rules that read what our clients counted are left out: nobody shows that on a page.
    """
    found = []
    for past in open_pasts(run.path):
        assert past.member is not None
        folder = past.member.path
        if not (folder / KEPT).is_file():
            continue
        kept, zero_s = read_json(folder / KEPT), float(read_json(folder / "tester.json")["started"])
        read = _readable(groups, {one["__name__"] for one, _, _ in past.series() if one.get("job") != GATEWAY["job"]})
        judged = judge(groups, past.read(groups), span_ms=past.span_ms)
        alerts = {one.rule.name for one in judged if not one.rule.records}
        held = [one for one in judged if one.rule.name in read and not one.rule.records]
        theirs = {name: _pages(spans, zero_s) for name, spans in kept["firing"].items() if name in read}
        speed = float(run.info.get("speed", 1.0))
        differ = [_in_model(one, speed) for one in
                  disagreements(held, theirs, zero_s, run.scenario.scrape_interval / speed, speed)]  # fmt: skip
        since = {state: _since(kept[state], zero_s, speed) for state in ("firing", "pending")}
        names = {one.rule.name for one in held}
        found.append(
            Agreement(past.name, len(names), sorted(alerts - names), differ, kept["unhealthy"], since["firing"],
                      since["pending"])
        )  # fmt: skip
    return found


def sentences(found: Sequence[Agreement]) -> list[str]:
    """Return what is to be said of *found*: first of all whether they agree."""
    said = []
    for one in found:
        where = f"{one.name}: " if len(found) > 1 else ""
        if one.holds:
            said.append(f"{where}agrees on {count(one.compared, 'rule')}.")
        said += [f"{where}{_told(differs)}" for differs in one.disagreements]
        said += [f"{where}{rule}: could not be evaluated there: {why}" for rule, why in one.unhealthy.items()]
        if one.left_out:
            said.append(f"{where}not compared, for they read what clients saw: {', '.join(one.left_out)}.")
    return said


def _in_model(one: Disagreement, speed: float) -> Disagreement:
    times_s = [None if t is None else t * speed for t in (one.ours_s, one.theirs_s)]
    return Disagreement(one.rule, *times_s)


def _told(one: Disagreement) -> str:
    ours = "not here" if one.ours_s is None else f"here at {one.ours_s:.0f} s"
    theirs = "not there" if one.theirs_s is None else f"there at {one.theirs_s:.0f} s"
    return f"{one.rule}: began to fire {ours}, {theirs}."


def _readable(groups: Sequence[Group], scraped: set[str]) -> set[str]:
    """Return the names of the rules that read, also through what others record, nothing that only clients count.

    *scraped* is what pages show.
    """
    rules = [rule for group in groups for rule in group.rules]
    of_clients = {one["__name__"] for one in _client_labels()} - scraped
    tainted: set[str] = set()
    while more := {rule.name for rule in rules if rule.name not in tainted and _reads(rule) & (of_clients | tainted)}:
        tainted |= more
    return {rule.name for rule in rules} - tainted


def _client_labels() -> list[dict[str, str]]:
    from sim.telemetry.scraper import ALWAYS, Scraper

    made = Scraper([], GATEWAY, ["any"], ALWAYS, False)
    return [one for one in made.labels if one["__name__"] != "up"]


def _reads(rule: Rule) -> set[str]:
    return {select.name for select in rule.expression.selectors} if rule.expression is not None else set()


def _spans_s(pages: Mapping[str, Pages]) -> dict[str, list[list[float]]]:
    return {
        name: [[start / 1000, end / 1000] for start, end in zip(one.start_ms.tolist(), one.end_ms.tolist())]
        for name, one in pages.items()
    }


def _pages(spans_s: Sequence[Sequence[float]], zero_s: float) -> Pages:
    """Return what fired at *zero_s* or later; what began before the test is none of it."""
    spans = np.round(np.array(spans_s, float).reshape(-1, 2) * 1000).astype(np.int64)
    spans = spans[spans[:, 1] >= zero_s * 1000]
    return Pages(np.maximum(spans[:, 0], round(zero_s * 1000)), spans[:, 1])


def _since(spans_s: Mapping[str, Sequence[Sequence[float]]], zero_s: float, speed: float) -> dict[str, list[float]]:
    return {name: [round((begin_s - zero_s) * speed, 3) for begin_s, _ in spans] for name, spans in spans_s.items()}


__all__ = ["Agreement", "agreements", "beside", "keep", "sentences"]
