"""Sends what the schedule says when it says so, whatever the endpoint does, and watches itself doing it.

One greenlet walks an absolute schedule and starts one for each arrival, so a slow answer delays nobody (Locust's own
users wait for theirs; with 2 s of service they sent 228 of 600 requests). A heartbeat measures how late the process
itself is: what it cannot do in time it would otherwise blame on the endpoint.
"""

import contextlib
import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
import numpy as np
from gevent.pool import Group

from loadtest import prompts, rows, samples
from loadtest.client import ERRORS, NOT_SENT, Answer, Limits, attempt
from loadtest.plan import Plan, share
from loadtest.policy import Policy
from loadtest.racing import race
from loadtest.rows import BIN_LOW_S, BIN_RATIO, BINS, ROW
from loadtest.samples import Kept
from loadtest.schedule import MORE, Ask, Schedule
from loadtest.wire import Wire
from sim.records import Answerer, Outcome
from sim.workload.prompts import Prompts

BEAT_S = 0.01
FLUSH_S = 0.25
GONE = 50
"""After so many attempts in a row without a connection the endpoint is gone, and is left alone."""
_PER_LOG = 1.0 / math.log(BIN_RATIO)

Told = Callable[[str, Answer, float, float], None]
"""Called at each request's end: its cohort, the last answer, TTFT and whole time from its schedule."""


@dataclass(slots=True, eq=False)
class _Try:
    """An attempt on its way: what is asked, when the user acted, when it is sent, and what was waited before.

    *second* is a hedged copy.
    """

    asked: np.void
    scheduled_s: float
    sent_s: float
    number: int = 0
    backoff_s: float = 0.0
    second: bool = False

    def next(self, number: int, at_s: float, wait_s: float) -> "_Try":
        """Return attempt *number* of the same request, *wait_s* after this one's end."""
        return _Try(self.asked, self.scheduled_s, at_s, number, self.backoff_s + wait_s)

    def twin(self, at_s: float) -> "_Try":
        """Return a second copy of this attempt, sent at *at_s*."""
        return _Try(self.asked, self.scheduled_s, at_s, self.number + 1, self.backoff_s, True)

    def not_sent(self, at_s: float) -> "_Try":
        """Return the same, ended at *at_s*: where that is before it was sent, the back-off was shorter."""
        early_s = self.sent_s - at_s
        return _Try(self.asked, self.scheduled_s, at_s, self.number, max(0.0, self.backoff_s - early_s))


class Dispatcher:
    """One process' part of a load test."""

    def __init__(self, plan: Plan, headers: Mapping[str, str], told: Told = lambda *_: None) -> None:
        """Draw the users of *plan*; *headers* are sent with every request."""
        scenario = plan.loaded
        self.plan, self.scenario, self._told = plan, scenario, told
        self.index, self._of = 0, 1
        self.schedule = Schedule(plan)
        self.prompts = prompts.Prompts(plan.talk, plan.salt, self.schedule.users.prefixes)
        self.wire = Wire(plan.url, headers, plan.ca)
        cohorts = scenario.workload.cohorts.values()
        self._policies = [Policy(c.clients or scenario.clients, plan.seed, plan.timeout_s) for c in cohorts]
        self._cohorts = list(scenario.workload.cohorts)
        self._models = [plan.models[pool] for pool in scenario.fleet.pools]
        self._real = Prompts(scenario, plan.seed)
        self._path = prompts.path(plan.talk)
        self._writer = rows.Writer("", 0)
        self._sample, self._answers = samples.Sample(scenario, plan.seed), samples.Writer("", 0)
        self._flying, self._thinking, self._losers = Group(), Group(), Group()
        self._requests_left = self._tokens_left = math.inf
        self.planned = self.sent = self.dropped = self._lost = 0
        self.stopped, self.stopped_s = "", math.inf
        self.done = False
        self.cut = 0
        """Requests in flight when somebody interrupted: nothing is known of how they would have ended."""
        self.t0 = math.nan
        self._wall_t0 = math.nan
        self._beats: Counter[int] = Counter()
        self._cpu_s = 0.0
        self._gaps = np.zeros(BINS, np.int64)
        self._said: dict[str, str] = {}
        self._prompts = self._off_by = 0

    def now_s(self) -> float:
        """Seconds since the start of the run; of the model, where the endpoint is played faster than the clock."""
        return (time.monotonic() - self.t0) * self.plan.speed

    def _clock(self) -> float:
        """Return the same from another zero: the monotonic clock as it was at the start."""
        return self.t0 + self.now_s()

    def run(self, wall_t0: float, index: int = 0, of: int = 1) -> None:
        """Play part *index* of *of* of the schedule from *wall_t0* (Unix time) on, and wait for what is in flight."""
        self.index, self._of = index, of
        self._requests_left = share(self.plan.max_requests, index, of)
        self._tokens_left = share(self.plan.max_tokens, index, of)
        self._writer = rows.Writer(self.plan.folder, index)
        self._answers = samples.Writer(self.plan.answers, index)
        self._wall_t0 = wall_t0
        self.t0 = time.monotonic() + (wall_t0 - time.time())
        self._cpu_s = time.process_time()
        _many_files()
        beat, writing = gevent.spawn(self._beat), gevent.spawn(self._flush_often)
        try:
            with contextlib.suppress(Exception):
                self.wire.resolve()  # if there is no such host, every attempt says so
            for ask in self.schedule.asks(index, of):
                ask.sent = self._written(ask.row)  # while there is time
                self._wait_until(float(ask.row["scheduled_s"]))
                if self.stopped:
                    break
                self._begin(ask, float(ask.row["scheduled_s"]))
            last_s = self.scenario.duration + self.scenario.drain
            while (self._flying or self._thinking) and self.stopped in ("", "limit") and self.now_s() < last_s:
                gevent.sleep(0.02)
        finally:
            self._thinking.kill()
            self._flying.kill()
            self._losers.kill()
            beat.kill()
            self.done = True
            writing.join()
            self.flush()

    def stop(self, why: str = "stopped") -> None:
        """Send nothing more, and end what is in flight as unfinished."""
        if not self.stopped:
            self.stopped, self.stopped_s = why, max(0.0, self.now_s())

    def flush(self) -> None:
        """Write down rows and state."""
        self._writer.taken(self.state(), self._gaps)()
        self._answers.flush()

    def state(self) -> dict[str, Any]:
        """Return how this process is doing."""
        elapsed_s = max(time.monotonic() - self.t0, 1e-9)
        return {
            "index": self.index, "of": self._of, "wall_t0": self._wall_t0, "t0": self.t0, "planned": self.planned,
            "sent": self.sent, "dropped": self.dropped, "cut": self.cut, "in_flight": len(self._flying),
            "stopped": self.stopped, "stopped_s": self.stopped_s if self.stopped else None, "done": self.done,
            "prompts": self._prompts, "off_by": self._off_by,
            "cpu": (time.process_time() - self._cpu_s) / elapsed_s, "said": self._said,
            "hub_lag_ms": {str(ms): n for ms, n in sorted(self._beats.items())},
        }  # fmt: skip

    # --- users ------------------------------------------------------------------------------------------------------

    def _wait_until(self, at_s: float) -> None:
        while (left_s := at_s - self.now_s()) > 0 and not self.stopped:
            gevent.sleep(min(left_s / self.plan.speed, 0.25))

    def _begin(self, ask: Ask, scheduled_s: float) -> None:
        """Let a user ask, in a greenlet of its own; or drop it where too many are in flight."""
        if not self._may_send(ask):
            return
        self.planned += 1
        if len(self._flying) >= self.plan.max_in_flight:
            self.dropped += 1
            now_s = self.now_s()
            dropped = Answer(Outcome.CANCELLED, NOT_SENT, "dropped", "", *_at(self.t0 + now_s))
            self._write(_Try(ask.row, scheduled_s, now_s), dropped, True)
            self._goes_on(ask, now_s)
            return
        self._flying.start(gevent.Greenlet(self._user, ask, scheduled_s))

    def _may_send(self, ask: Ask) -> bool:
        """Take a request from what --max-requests and --max-tokens allow; past that nothing more is sent."""
        line = self._real.of(int(ask.row["cohort"]), int(ask.row["request"]))
        output = int(ask.row["output_tokens"]) if line is None else prompts.most_tokens(self.plan.talk, line)
        tokens = int(ask.row["prompt_tokens"]) + output
        if self._requests_left < 1 or self._tokens_left < tokens:
            self.stop("limit")
            return False
        self._requests_left -= 1
        self._tokens_left -= tokens
        return True

    def _user(self, ask: Ask, scheduled_s: float) -> None:
        try:
            finished_s = self._request(ask, scheduled_s)
        except gevent.GreenletExit:
            return
        self._goes_on(ask, finished_s)

    def _goes_on(self, ask: Ask, finished_s: float) -> None:
        """Let the session go on: the next turn comes its think time after the answer."""
        if int(ask.row["follow_up"]) == MORE:
            ask = self.schedule.more(int(ask.row["session"]))
        elif ask.after:
            ask = Ask(ask.after.popleft(), ask.after)
        else:
            return
        at_s = finished_s + float(ask.row["scheduled_s"])
        if at_s < self.scenario.duration:
            self._thinking.spawn(self._later, ask, at_s)

    def _later(self, ask: Ask, at_s: float) -> None:
        self._wait_until(at_s)
        if not self.stopped:
            self._begin(ask, at_s)

    # --- one request ------------------------------------------------------------------------------------------------

    def _request(self, ask: Ask, scheduled_s: float) -> float:
        """Play one request with all its attempts; return when it ended, in run time."""
        row = ask.row
        policy = self._policies[row["cohort"]]
        policy.begins()
        request, sent = int(row["request"]), ask.sent or self._written(row)
        keep = self._answers.is_kept and self._sample.wants(request, int(row["cohort"]))
        began_s = self.t0 + scheduled_s
        deadline_s, leaves_s = began_s + policy.deadline_s(), began_s + policy.patience_s(request)
        over_s = min(deadline_s, leaves_s) - self.t0
        mine, tries = _Try(row, scheduled_s, self.now_s()), 0
        self.sent += 1
        flying = False  # where several copies fly, they end themselves
        try:
            while True:
                limits = policy.limits(self.t0 + mine.sent_s, deadline_s, leaves_s, self.plan.stall_s)
                flying = policy.hedge_s is not None
                mine, answer, attempts = self._tried(policy, mine, sent, limits, keep)
                flying = False
                finished_s = answer.finished_s - self.t0
                again = policy.tries_again(answer.outcome, answer.status, tries, answer.error)
                self._note(answer, row)
                self._write(mine, answer, not again)
                if not again:
                    self._report(row, answer, scheduled_s, finished_s)
                    return finished_s
                wait_s = policy.backoff_s(request, tries, attempts)
                tries += 1
                mine = mine.next(attempts, finished_s + wait_s, wait_s)
                self._wait_until(min(mine.sent_s, over_s))
                if mine.sent_s > over_s:  # the user's time is over before the next attempt
                    late = Outcome.TIMED_OUT if deadline_s <= leaves_s else Outcome.CANCELLED
                    self._write(
                        mine.not_sent(over_s), Answer(late, NOT_SENT, "not_sent", "", *_at(self.t0 + over_s)), True
                    )
                    return over_s
                mine.sent_s = self.now_s()
        except gevent.GreenletExit:
            if self.stopped == "stopped":  # by us: the service has done nothing wrong, and no token has come
                self.cut += 1
                raise
            if flying:
                raise
            now_s = self.now_s()
            left = Answer(Outcome.UNFINISHED, NOT_SENT, "unfinished", "", *_at(self.t0 + now_s))
            self._write(mine.not_sent(min(now_s, mine.sent_s)), left, True)
            raise

    def _tried(
        self, policy: Policy, mine: _Try, sent: tuple[str, bytes], limits: Limits, keep: bool
    ) -> tuple[_Try, Answer, int]:
        """Play one try, with its second copy if it has one; return the copy that was left, and the attempts so far."""
        request, attempts = int(mine.asked["request"]), mine.number + 1
        if policy.holds_back(request, mine.number, mine.sent_s):
            return mine, Answer(Outcome.REJECTED, NOT_SENT, "throttled", "", *_at(self.t0 + self.now_s())), attempts

        def send(copy: _Try, first: Callable[[], None] = lambda: None) -> Answer:
            name = f"blowout-{request}-{copy.number}"
            answer = attempt(self.wire, *sent, name, limits, keep, self._clock, self.plan.speed, first)
            if answer.outcome == Outcome.OK and copy not in gone:
                policy.answered(answer.finished_s - self.t0)
            return answer

        def second() -> _Try | None:
            nonlocal attempts
            if not policy.hedges(attempts):
                return None
            attempts += 1
            return mine.twin(self.now_s())

        def ended(copy: _Try, answer: Answer, last: bool) -> None:
            gone.add(copy)
            if math.isnan(answer.finished_s):
                answer.finished_s = self.t0 + self.now_s()
            if self.stopped != "stopped" or answer.outcome != Outcome.UNFINISHED:  # cut off by us: see `_request`
                self._write(copy, answer, last)

        gone: set[_Try] = set()
        if policy.hedge_s is None:
            return mine, send(mine), attempts
        losers = None if policy.cancels_losers else self._losers
        return *race(mine, second, policy.hedge_s / self.plan.speed, send, ended, losers), attempts

    def _written(self, row: np.void) -> tuple[str, bytes]:
        """Return path and body of what *row* asks."""
        tokens, talk = int(row["prompt_tokens"]), self.plan.talk
        line = self._real.of(int(row["cohort"]), int(row["request"]))
        if line is not None:
            return prompts.real(talk, self._models[row["pool"]], line)
        output = int(row["output_tokens"])
        if talk.context:
            output = max(1, min(output, talk.context - tokens))
        prompt = self.prompts.written(int(row["prefix"]), int(row["prefix_tokens"]), int(row["content"]), tokens)
        return self._path, prompts.body(talk, self._models[row["pool"]], prompt, output).encode()

    def _note(self, answer: Answer, row: np.void) -> None:
        """Count gaps between tokens, and by how much prompts are off what *row* says; keep an example of each error.

        And notice when nobody is there any more.
        """
        if answer.gaps_s and answer.finished_s - self.t0 >= self.scenario.warmup:
            bins = (np.log(np.maximum(answer.gaps_s, BIN_LOW_S) / BIN_LOW_S) * _PER_LOG).astype(np.int64)
            np.add.at(self._gaps, np.minimum(bins, BINS - 1), 1)
        if answer.prompt_tokens >= 0 and not self._real.are_real(int(row["cohort"])):
            self._prompts += 1
            self._off_by += abs(answer.prompt_tokens - int(row["prompt_tokens"]))
        if answer.error != "none" and answer.said:
            self._said.setdefault(answer.error, answer.said)
        self._lost = self._lost + 1 if answer.error in ("connect", "closed") else 0
        if self._lost >= GONE:
            self.stop("gone")

    def _report(self, row: np.void, answer: Answer, scheduled_s: float, finished_s: float) -> None:
        self._told(
            self._cohorts[row["cohort"]], answer, answer.first_s - self.t0 - scheduled_s, finished_s - scheduled_s
        )

    def _write(self, mine: "_Try", answer: Answer, last: bool) -> None:
        """Put an attempt down as a row. Its time is client_wait, backoff, then prefill to the first token, then decode.

        What a client cannot see (queues, preemptions, who else is in the batch) is in those two.
        """
        asked, sent_s = mine.asked, mine.sent_s
        rows_ = np.zeros(1, ROW)
        row = rows_[0]
        for name in ("request", "session", "turn", "cohort", "pool", "level"):
            row[name] = asked[name]
        first_s, finished_s = answer.first_s - self.t0, answer.finished_s - self.t0
        row["attempt"], row["last"], row["hedge"] = mine.number, last, mine.second
        row["replica"], row["outcome"], row["status"] = -1, answer.outcome, answer.status
        row["answerer"] = Answerer.MODEL if answer.outcome == Outcome.OK else Answerer.NOBODY
        row["prompt_tokens"] = answer.prompt_tokens if answer.prompt_tokens >= 0 else asked["prompt_tokens"]
        row["output_tokens"] = answer.output_tokens
        row["scheduled_s"], row["sent_s"], row["admitted_s"] = mine.scheduled_s, sent_s, math.nan
        row["first_token_s"], row["finished_s"] = first_s, finished_s
        row["client_wait_s"], row["backoff_s"] = sent_s - mine.scheduled_s - mine.backoff_s, mine.backoff_s
        row["prefill_s"] = (finished_s if math.isnan(first_s) else first_s) - sent_s
        row["decode_alone_s"] = 0.0 if math.isnan(first_s) else finished_s - first_s
        row["error"] = ERRORS.index(answer.error)
        self._writer.add(rows_)
        if answer.text is not None and answer.outcome == Outcome.OK:
            who = int(row["request"]), int(row["cohort"]), int(row["pool"])
            self._answers.add(Kept(*who, mine.scheduled_s, "".join(answer.text)))

    # --- itself -----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Sleep, and note by how many milliseconds that was too long."""
        while True:
            before_s = time.monotonic()
            gevent.sleep(BEAT_S)
            self._beats[int((time.monotonic() - before_s - BEAT_S) * 1000)] += 1

    def _flush_often(self) -> None:
        """Write in a thread: on a busy disk a write takes seconds, and nobody could be sent or heard meanwhile."""
        while not self.done:
            gevent.sleep(FLUSH_S)
            gevent.get_hub().threadpool.apply(self._writer.taken(self.state(), self._gaps))
            self._answers.flush()


def _at(finished_s: float) -> tuple[float, float]:
    """Return first token (none) and end of an attempt that has no answer."""
    return math.nan, finished_s


def _many_files() -> None:
    """Allow as many connections as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65_536), hard)
        )
