"""Gates that hold back answers which sound unsure, and the teams that review what they hold.

Passive, as the judge is: it is handed what has ended, in whatever pieces, and plays up to the time it is given. What a
review takes and what its reviewer overlooks belongs to the request (streams ``handling TEAM``, ``patience TEAM``,
``reviewed TEAM`` and ``gate POOL``), so two policies that escalate the same answer meet the same reviewer.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sim.draws import Luck, exponential, who
from sim.quality.gates import Gate, of_share
from sim.quality.review import Staff, Team
from sim.records import Outcome
from sim.summary import ratio

MINUTE_S = 60.0
ENOUGH = 5_000
"""Answers by which a gate knows its least confident ones: those of the last minutes, as many as that takes."""
MOST_MINUTES = 60
HELD = np.dtype([("at_s", "f8"), ("name", "u8"), ("pool", "i2"), ("confidence", "f4"), ("wrong", "u1")])
"""An answer that comes to a gate: when it is there, and how its request's luck is named."""
NOTHING = Gate(-math.inf)


@dataclass(frozen=True)
class GateRules:
    """Pool, team (indexes), and one of: a threshold, a share of answers, a share of the team's time."""

    pool: int
    name: str
    team: int
    below: float | None = None
    lowest: float | None = None
    load_aware: float | None = None


@dataclass(frozen=True)
class TeamRules:
    """A team; *handling* is (kind, seconds, sigma) with kind fixed, exponential or lognormal; so is *patience*."""

    name: str
    staff: Staff
    handling: tuple[str, float, float]
    patience: tuple[str, float, float] | None = None
    misses: float = 0.0
    false_alarms: float = 0.0
    withhold: bool = False

    @property
    def handling_s(self) -> float:
        """The mean time of a review."""
        kind, time_s, sigma = self.handling
        return time_s * math.exp(sigma**2 / 2) if kind == "lognormal" else time_s


class _Remembered:
    """What a gate knows of confidence: that of the last minutes. It lets everything pass until it knows a hundred."""

    def __init__(self) -> None:
        self.gate = NOTHING
        self._minute = -1
        self._now: list[np.ndarray] = []
        self._past: deque[tuple[int, np.ndarray]] = deque()
        self.known = 0

    def rate_per_s(self) -> float:
        """Return the answers a second of the minutes it remembers."""
        return self.known / (MINUTE_S * (self._minute - self._past[0][0])) if self._past else 0.0

    def note(self, minute: int, confidence: np.ndarray) -> bool:
        """Remember answers of *minute*; return whether a minute is over, so that there is more to know."""
        over = minute != self._minute
        if over:
            if self._now:
                self._past.append((self._minute, np.concatenate(self._now)))
                self.known += len(self._past[-1][1])
            self._minute, self._now = minute, []
            while self._past and (
                self.known - len(self._past[0][1]) >= ENOUGH or self._past[0][0] < minute - MOST_MINUTES
            ):
                self.known -= len(self._past.popleft()[1])
        self._now.append(confidence)
        return over

    def learn(self, share: float) -> None:
        """Choose the gate that would have held *share* of what is remembered."""
        if self.known >= 100:
            self.gate = of_share(np.concatenate([one for _, one in self._past]), min(1.0, share))


class Containment:
    """All gates and teams of a run."""

    def __init__(self, gates: Sequence[GateRules], teams: Sequence[TeamRules], seed: int, end_s: float) -> None:
        """Begin at time 0 with nothing held; a team's shares of time count up to *end_s*."""
        self.gates, self.rules = list(gates), list(teams)
        self.teams = [Team(one.staff, end_s) for one in teams]
        self.end_s = end_s
        self._luck = Luck(seed)
        self._gated = np.array([one.pool for one in gates], int)
        self._remembered = [_Remembered() for _ in gates]
        self._coming: list[np.ndarray] = []
        self._played_s = 0.0
        self.came = np.zeros((len(self.teams), 2), np.int64)
        """Answers that came to the gates of each team, and how many of them were wrong."""

    @property
    def names(self) -> list[str]:
        """What the teams are called."""
        return [one.name for one in self.rules]

    def take(self, rows: np.ndarray, verdicts: np.ndarray) -> None:
        """Let what has ended (ATTEMPT and VERDICT, one a request) come to its gate; answers by rules have none."""
        chosen = np.flatnonzero(
            (rows["outcome"] == Outcome.OK) & (rows["replica"] >= 0) & np.isin(rows["pool"], self._gated)
        )
        if not chosen.size:
            return
        held = np.empty(chosen.size, HELD)
        held["at_s"], held["pool"] = rows["finished_s"][chosen], rows["pool"][chosen]
        held["name"] = who(rows["request"][chosen])
        held["confidence"], held["wrong"] = verdicts["confidence"][chosen], verdicts["wrong"][chosen]
        self._coming.append(held)

    def play(self, until_s: float) -> None:
        """Let gates choose among what has come by *until_s*, and teams work until then."""
        coming = np.concatenate(self._coming) if self._coming else np.zeros(0, HELD)
        here = coming["at_s"] <= until_s
        self._coming = []
        if not here.all():
            self._coming, coming = [coming[~here]], coming[here]
        coming = coming[np.lexsort((coming["name"], coming["at_s"]))]  # ties go by request, not by when they were told
        assert not coming.size or coming["at_s"][0] >= self._played_s, "causality: an answer for a time already played"
        self._played_s = until_s
        held: list[list[np.ndarray]] = [[] for _ in self.teams]
        for rules, remembered in zip(self.gates, self._remembered, strict=True):
            mine = coming[coming["pool"] == rules.pool] if len(self.gates) > 1 else coming
            if mine.size:
                self.came[rules.team] += len(mine), int(mine["wrong"].sum())
                held[rules.team].append(mine[self._holds(rules, remembered, mine)])
        for k, pieces in enumerate(held):
            if pieces:
                together = np.concatenate(pieces)
                self._review(k, together[np.argsort(together["at_s"], kind="stable")])
            if until_s < math.inf:
                self.teams[k].play(until_s)

    def close(self) -> None:
        """Let everything that was answered be reviewed, however long that takes."""
        self.play(math.inf)
        for team in self.teams:
            team.close()

    def _holds(self, rules: GateRules, remembered: _Remembered, mine: np.ndarray) -> np.ndarray:
        """Return which of the answers *mine*, in order of time, wait for a person."""
        confidence = mine["confidence"]
        if rules.below is not None:
            return np.asarray(confidence < rules.below)
        lot = self._luck.one(f"gate {rules.name}", mine["name"])
        chosen = np.zeros(len(mine), bool)
        minutes = (mine["at_s"] / MINUTE_S).astype(np.int64)
        edges = [0, *(np.flatnonzero(np.diff(minutes)) + 1).tolist(), len(mine)]
        for begin, end in zip(edges, edges[1:]):
            piece, minute = slice(begin, end), int(minutes[begin])
            if remembered.note(minute, confidence[piece]):
                remembered.learn(self._share(rules, remembered, minute * MINUTE_S))
            at, ties = remembered.gate
            chosen[piece] = (confidence[piece] < at) | ((confidence[piece] == at) & (lot[piece] < ties))
        return chosen

    def _share(self, rules: GateRules, remembered: _Remembered, now_s: float) -> float:
        """Return the share of answers that the gate is to hold from *now_s* on."""
        if rules.lowest is not None:
            return rules.lowest
        assert rules.load_aware is not None
        rate = remembered.rate_per_s()
        team = self.rules[rules.team]
        can_per_s = rules.load_aware * team.staff.at(now_s) / team.handling_s
        return can_per_s / rate if rate else 1.0

    def _review(self, k: int, held: np.ndarray) -> None:
        """Send answers *held*, in order of time, to team *k*."""
        rules, names = self.rules[k], held["name"]
        wrong = held["wrong"] == 1
        lot = self._luck.one(f"reviewed {rules.name}", names)
        after = np.where(wrong, lot < rules.misses, lot < rules.false_alarms)
        patience_s = None if rules.patience is None else self._times(f"patience {rules.name}", rules.patience, names)
        handling_s = self._times(f"handling {rules.name}", rules.handling, names)
        self.teams[k].take(held["at_s"], handling_s, patience_s, wrong, after)

    def _times(self, purpose: str, drawn: tuple[str, float, float], names: np.ndarray) -> np.ndarray:
        kind, time_s, sigma = drawn
        match kind:
            case "exponential":
                return np.asarray(exponential(self._luck.one(purpose, names), time_s))
            case "lognormal":
                return np.asarray(time_s * np.exp(sigma * special.ndtri(self._luck.one(purpose, names))))
        return np.full(len(names), time_s)

    def metrics(self, wrong: float) -> dict[str, float]:
        """Return what became of *wrong* answers (of all pools): caught, or delivered; and how the teams fared."""
        found: dict[str, float] = {}
        for rules, team, came in zip(self.rules, self.teams, self.came.tolist(), strict=True):
            found |= {f"team.{rules.name}.{name}": value for name, value in _measured(rules, team, *came).items()}
        for name in ("escalated", "caught", "withheld", "delivered_wrong"):
            found[name] = sum(found[f"team.{one.name}.{name}"] for one in self.rules)
        found["delivered_wrong"] += wrong - float(self.came[:, 1].sum())  # nobody looked at those of other pools
        found["caught_share"] = found["caught"] / wrong if wrong else math.nan
        return found


def _measured(rules: TeamRules, team: Team, answers: int, wrong: int) -> dict[str, float]:
    """Return what `sim.scenario.contained.TEAM_METRICS` names; *answers* came to its gates, so many *wrong*."""
    escalated, worked_s = float(team.escalated), team.staff.worked_s(team.end_s)
    delivered = wrong - team.wrong + team.reviewed_wrong + (0 if rules.withhold else team.late_wrong)
    return {
        "escalated": escalated,
        "escalated_share": ratio(escalated, answers),
        "reviewed": float(team.reviewed),
        "late": float(team.late),
        "late_share": ratio(team.late, escalated),
        "waited_share": ratio(team.waited, escalated),
        "wait_mean": ratio(team.waits.total_s, team.reviewed),
        "wait_p50": team.waits.quantile_s(0.5),
        "wait_p95": team.waits.quantile_s(0.95),
        "queue_mean": team.queued_s / team.end_s,
        "busy_share": ratio(team.busy_s, worked_s),
        "caught": float(team.caught),
        "caught_share": ratio(team.caught, wrong),
        "withheld": float(team.late if rules.withhold else 0),
        "delivered_wrong": float(delivered),
        "delivered_share": ratio(delivered, answers),
    }
