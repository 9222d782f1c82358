"""The judge: was this answer right? And the counts of everything that was judged.

Right or wrong is a pure function of the seed, the request, and what happened to it (cohort, version, place, latency):
whatever is drawn belongs to the request (or its session) and to a purpose, by the streams ``errors``, ``chances``,
``confidence``, ``users``, ``kinds``, ``cause NAME``, ``concerns NAME``, ``evaluated``, ``judged``. So two policies see
the same wrong answers, and a cause more changes nothing about the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from sim.draws import Luck, who
from sim.ids import first_try
from sim.quality.alarm import SAID
from sim.quality.chances import CELLS, chances, logits
from sim.quality.verdicts import KINDS, VERDICT
from sim.records import Answerer, Outcome

_SESSION = np.uint64(0x5851F42D4C957F2D)  # sessions are not named like requests
MINUTE_S = 60.0
COLUMNS = ("requests", "answered", "wrong")
SEEN = ("evaluated", "flagged")
OPEN = -1  # of what was foreseen: nobody knows yet


@dataclass(frozen=True)
class Cause:
    """What `sim.scenario.quality.Cause` says, in the fleet's own numbers.

    *cohorts* and *replicas* (of any pool) are None for all; *rules*: it is about answers by rules. *latency* names what
    must be above *above_s*. *until_s* is infinite where it does not end; a cause that *grows* reaches *error* there.
    """

    name: str
    error: float
    kind: int = 1
    share: float = 1.0
    by_session: bool = False
    cohorts: frozenset[int] | None = None
    replicas: frozenset[int] | None = None
    rules: bool = False
    version: int | None = None
    latency: str = ""
    above_s: float = 0.0
    from_s: float = 0.0
    until_s: float = math.inf
    grows: bool = False
    visible: bool = False


@dataclass(frozen=True)
class Release:
    """From a time on, a *share* of what is asked is answered by a *version*; by session where there are any."""

    from_s: float
    version: int
    share: float


@dataclass(frozen=True)
class Rules:
    """Everything the judge goes by: of each cohort its own *errors*; see `sim.scenario.quality.Quality` for the rest.

    *evaluate* is the share of answers looked at, by cohort; *kinds* are shares of `KINDS`, the first 0. Of
    *confidence*, (discrimination, overconfidence, shift, noise), None means that nobody asks.
    """

    errors: tuple[float, ...]
    evaluate: tuple[float, ...]
    causes: tuple[Cause, ...] = ()
    kinds: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0, 0.0)
    user_sigma: float = 0.0
    confidence: tuple[float, float, float, float] | None = None
    sensitivity: float = 1.0
    specificity: float = 1.0
    delay_s: float = 0.0
    versions: tuple[str, ...] = ("",)
    difficulty: tuple[float | None, ...] = ()
    systematic: tuple[float, ...] = ()
    """Of agents, by cohort (see `sim.scenario.agents.Agent`); empty where there are none."""


@dataclass
class _Waiting:
    """Evaluations whose verdict is not known yet, in the order in which they will be."""

    due_s: list[np.ndarray] = field(default_factory=list)
    where: list[np.ndarray] = field(default_factory=list)

    def known(self, now_s: float, places: int) -> np.ndarray:
        """Return how many are known by *now_s*, by place (of so many *places*), and forget them."""
        due_s, where = np.concatenate(self.due_s), np.concatenate(self.where)
        known = due_s <= now_s
        self.due_s, self.where = ([due_s[~known]], [where[~known]]) if not known.all() else ([], [])
        return np.bincount(where[known], minlength=places)


class Judge:
    """Judges how requests ended, and counts: by minute, cohort and version, and what an evaluation has seen."""

    def __init__(self, rules: Rules, seed: int, pools: int, duration_s: float) -> None:
        """Set up with nothing judged yet, for a run of *duration_s* on so many *pools*."""
        self.rules = rules
        self._luck = Luck(seed)
        self._releases: list[Release] = []
        k, v = len(rules.errors), len(rules.versions)
        kappa = rules.confidence[0] if rules.confidence else None
        spread = [own or kappa for own in rules.difficulty or (None,) * k]
        flat = not any(spread) and rules.user_sigma == 0.0
        self._logits = None if flat else np.stack(
            [logits(chances(error, own), rules.user_sigma) for error, own in zip(rules.errors, spread, strict=True)]
        )  # fmt: skip
        self._by_task = np.array([own is not None for own in rules.difficulty or (None,) * k])
        self._systematic = np.array(rules.systematic or (0.0,) * k)
        self._errors = np.array(rules.errors)
        self._evaluate = np.array(rules.evaluate)
        minutes = max(1, math.ceil(duration_s / MINUTE_S))
        self.tally = np.zeros((minutes, k, v, len(COLUMNS)), np.int64)
        """Requests, answered, and of those wrong: by minute of their schedule, cohort and version."""
        self.by_kind = np.zeros(len(KINDS), np.int64)
        self.by_cause = np.zeros(len(rules.causes) + 1, np.int64)
        self.by_fallback = 0
        """Answers by rules or a pool in the place of the one that was asked."""
        self._seen = np.zeros((pools, k, v, len(SEEN)), np.int64)
        self._waiting = _Waiting()
        self.said = np.zeros(0, SAID)
        """What the evaluation says, in time, of what was taken last."""
        self._shadow: tuple[float, int] | None = None
        self._pairs = np.zeros((2, 2), np.int64)
        self._waiting_pairs = _Waiting()

    # --- what is true ----------------------------------------------------------------------------------------------

    def release(self, from_s: float, version: int, share: float) -> None:
        """Let *version* answer a *share* of what is sent from *from_s* on; the rest is answered by version 0."""
        self._releases.append(Release(from_s, version, share))

    def shadow(self, from_s: float, version: int | None) -> None:
        """Let *version* answer a copy of what is sent from *from_s* on and evaluated, for no user; None: no longer."""
        self._shadow = None if version is None else (from_s, version)

    def versions(self, rows: np.ndarray) -> np.ndarray:
        """Return which version answers each of *rows* (ATTEMPT): decided by when it was sent, for sessions as one."""
        version = np.zeros(len(rows), np.int16)
        if not self._releases:
            return version
        at = np.searchsorted([one.from_s for one in self._releases], rows["sent_s"], "right") - 1
        lot = self._luck.one("release", _sessions(rows))
        for k, one in enumerate(self._releases):
            version[(at == k) & (lot < one.share)] = one.version
        return version

    def judge(self, rows: np.ndarray, version: np.ndarray | None = None) -> np.ndarray:
        """Return the verdict (`VERDICT`) on each of *rows* (ATTEMPT): a pure function of it and the releases so far.

        A *version* (int, one a row) in place of the one that answered: what that one would have said.
        """
        verdicts = np.zeros(len(rows), VERDICT)
        verdicts["version"] = self.versions(rows) if version is None else version
        verdicts["cause"], verdicts["confidence"] = -1, np.nan
        answered = rows["outcome"] == Outcome.OK
        if not answered.any():
            return verdicts
        everybody = answered.all()
        mine = rows if everybody else rows[answered]
        said = verdicts if everybody else verdicts[answered]
        self._say(mine, said)
        if not everybody:
            verdicts[answered] = said
        return verdicts

    def foresee(self, rows: np.ndarray) -> np.ndarray:
        """Return which of what is asked in *rows* (REQUEST) will be answered wrong, if it is answered (int8).

        0 and 1: whatever happens to it. `OPEN`: that decides, for there is a cause that may strike it.
        """
        names = self._names(rows)
        error, _ = self._base(rows, names)
        foreseen = (self._luck.one("errors", names) < error).astype(np.int8)
        for one in self.rules.causes:
            strikes = (self._luck.one(f"cause {one.name}", names) < one.error) & self._meant(one, rows, names)
            if one.cohorts is not None:
                strikes &= np.isin(rows["cohort"], list(one.cohorts))
            foreseen[strikes & (foreseen == 0)] = OPEN
        return foreseen

    def _say(self, rows: np.ndarray, said: np.ndarray) -> None:
        """Fill in the verdicts on answers."""
        rules, names = self.rules, self._names(rows)
        error, logit = self._base(rows, names)
        cause = np.where(self._luck.one("errors", names) < error, 0, -1)
        for k in reversed(range(len(rules.causes))):  # the first in the file has the last word
            one = rules.causes[k]
            concerned = self._concerned(one, rows, said["version"], names)
            if not len(concerned):
                continue
            chance = one.error
            if one.grows:
                span_s = one.until_s - one.from_s
                chance = one.error * np.clip((rows["sent_s"][concerned] - one.from_s) / span_s, 0.0, 1.0)
            struck = self._luck.one(f"cause {one.name}", names[concerned]) < chance
            cause[concerned[struck]] = k + 1
            if one.visible and logit is not None:
                right = special.expit(logit[concerned]) * (1.0 - chance)
                logit[concerned] = special.logit(np.clip(right, 1e-12, 1.0 - 1e-12))
        said["cause"], said["wrong"] = cause, cause >= 0
        kinds = np.array([0, 0, *(one.kind for one in rules.causes)], np.int8)[cause + 1]
        if (own := np.flatnonzero(cause == 0)).size:
            until = np.cumsum(rules.kinds)[:-1]
            kinds[own] = np.searchsorted(until, self._luck.one("kinds", names[own]), "right")
        said["kind"] = kinds
        if rules.confidence is not None and logit is not None:
            said["confidence"] = self._confidence(logit, names)

    def _names(self, rows: np.ndarray) -> np.ndarray:
        """Return by which names requests are judged: their own, but tries of a systematic step by that of the first."""
        names = who(rows["request"])
        if self._systematic.any():
            first = who(first_try(rows["request"]))
            alike = self._luck.one("systematic", first) < self._systematic[rows["cohort"]]
            names[alike] = first[alike]
        return names

    def _base(self, rows: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the chance of each answer to be wrong by itself, and the logit of being right where it varies."""
        if self._logits is None:
            return self._errors[rows["cohort"]], None
        lot = self._luck.one("chances", names)
        if self._by_task.any():
            lot = np.where(self._by_task[rows["cohort"]], self._luck.one("chances", _sessions(rows)), lot)
        cell = (lot * CELLS).astype(np.int64)
        logit = self._logits[rows["cohort"], cell]
        if self.rules.user_sigma > 0.0:
            logit = logit + self.rules.user_sigma * special.ndtri(self._luck.one("users", _sessions(rows)))
        return special.expit(-logit), logit

    def _concerned(self, one: Cause, rows: np.ndarray, version: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Return the indexes of *rows* that cause *one* may make wrong."""
        some = np.ones(len(rows), bool)
        if one.from_s > 0.0 or (one.until_s < math.inf and not one.grows):
            some &= (rows["sent_s"] >= one.from_s) & ((rows["sent_s"] < one.until_s) | one.grows)
        by_rules = (rows["replica"] < 0) & (rows["answerer"] == Answerer.FALLBACK)
        if one.rules:
            some &= by_rules
        elif one.replicas is None:
            some &= ~by_rules  # what is wrong with a model is not wrong with the rules that stand in for it
        else:
            some &= np.isin(rows["replica"], list(one.replicas))
        if one.cohorts is not None:
            some &= np.isin(rows["cohort"], list(one.cohorts))
        if one.version is not None:
            some &= version == one.version
        if one.latency:
            end = {"queue": "admitted_s", "ttft": "first_token_s", "e2e": "finished_s"}[one.latency]
            some &= rows[end] - rows["scheduled_s"] > one.above_s
        found = np.flatnonzero(some)
        return found[self._meant(one, rows[found], names[found])] if found.size else found

    def _meant(self, one: Cause, rows: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Return which of *rows* (bool) are of the share that cause *one* concerns."""
        if one.share == 1.0:
            return np.ones(len(rows), bool)
        whose = _sessions(rows) if one.by_session else names
        return np.asarray(self._luck.one(f"concerns {one.name}", whose) < one.share)

    def _confidence(self, logit: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Return how sure each answer sounds (0 to 1)."""
        assert self.rules.confidence is not None
        _, slope, shift, noise = self.rules.confidence
        heard = slope * logit + shift
        if noise > 0.0:
            heard = heard + noise * special.ndtri(self._luck.one("confidence", names))
        return special.expit(heard)

    # --- what is counted -------------------------------------------------------------------------------------------

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Judge and count how requests ended (*rows*: the deciding ATTEMPT of each); return the verdicts."""
        verdicts = self.judge(rows)
        answered = rows["outcome"] == Outcome.OK
        minute = np.minimum((rows["scheduled_s"] / MINUTE_S).astype(np.int64), len(self.tally) - 1)
        cell = np.ravel_multi_index((minute, rows["cohort"], verdicts["version"]), self.tally.shape[:3])
        flat = self.tally.reshape(-1, len(COLUMNS))
        for column, which in enumerate((slice(None), answered, verdicts["wrong"] == 1)):
            flat[:, column] += np.bincount(cell[which], minlength=len(flat))
        self.by_kind += np.bincount(verdicts["kind"], minlength=len(KINDS))
        self.by_cause += np.bincount(verdicts["cause"][verdicts["cause"] >= 0], minlength=len(self.by_cause))
        self.by_fallback += int((answered & (rows["answerer"] == Answerer.FALLBACK)).sum())
        self._evaluate_some(rows, verdicts, answered)
        return verdicts

    def _evaluate_some(self, rows: np.ndarray, verdicts: np.ndarray, answered: np.ndarray) -> None:
        """Let the evaluation look at its share of the answers of models; what it says is known later.

        Answers by rules are left out: they would tell a breaker that the model is well again.
        """
        self.said = np.zeros(0, SAID)
        if not self._evaluate.any():
            return
        looked = self._luck.one("evaluated", who(rows["request"])) < self._evaluate[rows["cohort"]]
        found = np.flatnonzero(answered & looked & (rows["replica"] >= 0))
        if not found.size:
            return
        mine, said = rows[found], verdicts[found]
        flagged = self.flags(mine, said)
        where = np.ravel_multi_index((mine["pool"], mine["cohort"], said["version"], flagged), self._seen.shape)
        due_s = mine["finished_s"] + self.rules.delay_s
        self.said = np.zeros(found.size, SAID)
        self.said["due_s"], self.said["name"] = due_s, who(mine["request"])
        self.said["cohort"], self.said["flagged"] = mine["cohort"], flagged
        self._waiting.due_s.append(due_s)
        self._waiting.where.append(where)
        if self._shadow is not None:
            from_s, version = self._shadow
            some = mine["sent_s"] >= from_s
            copies = self.judge(mine[some], np.full(some.sum(), version, np.int16))
            self._waiting_pairs.due_s.append(due_s[some])
            self._waiting_pairs.where.append(2 * flagged[some] + self.flags(mine[some], copies))

    def flags(self, rows: np.ndarray, verdicts: np.ndarray) -> np.ndarray:
        """Return what an evaluator who errs would say of answers: 1 is wrong."""
        rules = self.rules
        if rules.sensitivity == rules.specificity == 1.0:
            return verdicts["wrong"].astype(np.int64)
        limit = np.where(verdicts["wrong"] == 1, rules.sensitivity, 1.0 - rules.specificity)
        return (self._luck.one("judged", who(rows["request"])) < limit).astype(np.int64)

    def seen(self, now_s: float) -> np.ndarray:
        """Return what the evaluation has told by *now_s*: (pools, cohorts, versions, 2), looked at and called wrong."""
        if self._waiting.due_s:
            counts = self._waiting.known(now_s, self._seen.size).reshape(self._seen.shape)
            self._seen[..., 0] += counts.sum(axis=-1)
            self._seen[..., 1] += counts[..., 1]
        return self._seen

    def pairs(self, now_s: float) -> np.ndarray:
        """Return what the evaluation said by *now_s* of answers and their copies in the `shadow`: (2, 2).

        Rows are what it said of the answer, columns of the copy: 0 right, 1 wrong.
        """
        if self._waiting_pairs.due_s:
            self._pairs += self._waiting_pairs.known(now_s, 4).reshape(2, 2)
        return self._pairs

    def wrong_by_minute(self) -> np.ndarray:
        """Return how many wrong answers went to what was asked in each minute."""
        return np.asarray(self.tally[..., 2].sum(axis=(1, 2)))


def metrics(judge: Judge, cohorts: Sequence[str]) -> dict[str, float]:
    """Return the run's right and wrong in numbers: over requests offered (`bad`) and over answers (`wrong_share`)."""
    rules, n = judge.rules, judge.tally.sum(axis=0)
    found: dict[str, float] = {}

    def note(prefix: str, counts: np.ndarray) -> None:
        requests, answered, wrong = map(float, counts)
        found[f"{prefix}wrong_share"] = wrong / answered if answered else math.nan
        found[f"{prefix}bad"] = (requests - answered + wrong) / requests if requests else math.nan

    note("", n.sum(axis=(0, 1)))
    for k, name in enumerate(cohorts):
        note(f"cohort.{name}.", n[k].sum(axis=0))
    for k, name in enumerate(rules.versions[1:], start=1):
        found[f"version.{name}.answered"] = float(n[:, k, 1].sum())
        found[f"version.{name}.wrong"] = float(n[:, k, 2].sum())
    found |= {f"kind.{name}.wrong": float(judge.by_kind[k]) for k, name in enumerate(KINDS) if k}
    found |= {f"cause.{one.name}.wrong": float(judge.by_cause[k + 1]) for k, one in enumerate(rules.causes)}
    found["by_fallback"] = float(judge.by_fallback)
    return found


def metric_names(cohorts: Sequence[str], causes: Sequence[str], versions: Sequence[str]) -> set[str]:
    """Return the names that `metrics` gives for such a scenario."""
    shares = {
        f"{prefix}{name}" for prefix in ("", *(f"cohort.{c}." for c in cohorts)) for name in ("wrong_share", "bad")
    }
    of_versions = {f"version.{name}.{what}" for name in versions for what in ("answered", "wrong")}
    of_kinds = {f"kind.{k}.wrong" for k in KINDS[1:]} | {f"cause.{c}.wrong" for c in causes}
    return shares | of_versions | of_kinds | {"by_fallback"}


def _sessions(rows: np.ndarray) -> np.ndarray:
    """Return the names by which sessions are drawn; a request without one is a session of its own."""
    alone = rows["session"] < 0
    return np.where(alone, who(rows["request"]), who(rows["session"]) ^ _SESSION)
