"""Where callers wait while the fleet plays: one stream for each, and a tick that tells it how far its answer is."""

import heapq
import itertools
from collections.abc import Callable

import numpy as np
from gevent.event import Event

from loadtest.endpoint.callers import Call
from loadtest.endpoint.clock import Clock
from loadtest.endpoint.live import Live
from loadtest.endpoint.recording import Recording
from sim.engine.state import DECODE, NONE
from sim.scenario import Scenario


class Stream:
    """One answer on its way: *made* tokens of it are there, and when it has ended, its *row* is."""

    def __init__(self, asked: np.ndarray, capped: bool, is_open: Callable[[], bool]) -> None:
        """Begin to wait for what the row *asked* (`sim.records.REQUEST`) asks; *is_open*: its caller is there.

        *capped*: the caller's limit on output tokens ends the answer.
        """
        self.request = int(asked["request"])
        self.asked = asked
        self.made = 0
        self.row: np.ndarray | None = None
        self.left = False
        self.capped = capped
        self.is_open = is_open
        self._news = Event()

    def wait(self) -> None:
        """Wait until there is more of the answer than before, or its end."""
        self._news.wait()
        self._news.clear()

    def tell(self, made: int, row: np.ndarray | None) -> None:
        """Tell the caller that *made* tokens are there, and how it ended if it did."""
        self.made = max(made, self.made)
        self.row = row if self.row is None else self.row
        self._news.set()


class Room:
    """A live world with callers in it."""

    def __init__(self, scenario: Scenario, seed: int, clock: Clock, recording: Recording) -> None:
        """Open at t = 0; what callers do is written to *recording*."""
        self.clock = clock
        self.recording = recording
        self.streams: dict[int, Stream] = {}
        self.arrived = Event()
        """Somebody has come since this was cleared."""
        self.world = Live(scenario, seed, self._ended)
        self.answered = 0
        self._come: list[np.ndarray] = []
        self._left: list[int] = []
        self._ids = itertools.count()
        self._due: list[tuple[float, int, int, int, np.ndarray | None]] = []
        self._order = itertools.count()
        self._owner = np.zeros(0, np.int64)
        self._told = np.zeros(0, np.int64)
        self._egress_s = np.array([pool.egress_s for pool in self.world.fleet.pools])

    def ask(self, call: Call, is_open: Callable[[], bool]) -> Stream:
        """Let *call* arrive now, and return the stream of its answer.

        Raises:
            InputError: it names a cohort that it cannot be of.
        """
        request = next(self._ids)
        at_s = np.nextafter(max(self.clock.now_s(), self.world.fleet.now_s), np.inf)
        if self._come:
            at_s = max(at_s, float(self._come[-1]["scheduled_s"][0]))
        row = self.world.callers.row(request, float(at_s), call)
        self._come.append(row)
        self.recording.came(row[0])
        stream = self.streams[request] = Stream(row[0], int(row[0]["output_tokens"]) == call.most, is_open)
        self.arrived.set()
        return stream

    def leave(self, stream: Stream) -> None:
        """Let the caller of *stream* be gone; the engine hears of it at the next tick, unless it has answered."""
        if self.streams.pop(stream.request, None) is not None and stream.row is None:
            stream.left = True
            self._left.append(stream.request)

    def tick(self) -> None:
        """Bring the world up to the clock, and tell every caller what there is of its answer."""
        if self._come:
            self.world.fleet.submit(np.concatenate(self._come))
            self._come.clear()
        self.world.chase(self.clock.now_s())
        self._look()
        self._leave()
        self._deliver()

    def act(self, action: Callable[[], None]) -> float:
        """Bring the world up to the clock and let *action* happen in it; return when that was."""
        self.tick()
        action()
        self.world.chase(now_s := self.world.fleet.now_s)
        return now_s

    def hang_up(self) -> None:
        """Let those be gone whose connection is."""
        for stream in [one for one in self.streams.values() if one.row is None and not one.is_open()]:
            self.leave(stream)
            stream.tell(0, None)

    def _leave(self) -> None:
        left, self._left = self._left, []
        for request in left:
            if self.world.leave(request):
                self.recording.left(self.world.fleet.now_s, request)

    def _look(self) -> None:
        """See how many tokens there are of every answer: steps ended since its decoding began, no event a token."""
        fleet = self.world.fleet
        if not fleet.live:
            return
        asked, seqs = fleet.asked, fleet.seqs
        slots = np.flatnonzero(asked.live)
        slots = slots[asked.seq[slots] != NONE]
        if len(self._owner) < len(asked):
            self._owner = np.concatenate([self._owner, np.full(len(asked) - len(self._owner), -1)])
            self._told = np.concatenate([self._told, np.zeros(len(asked) - len(self._told), np.int64)])
        seq = seqs[asked.seq[slots]]
        steps = fleet.look()["steps"][seq.replica]
        made = seq.done + np.where(seq.state == DECODE, 1 + steps - seq.begin_step, 0)
        requests = asked.request[slots]
        told = np.where(self._owner[slots] == requests, self._told[slots], 0)
        self._owner[slots], self._told[slots] = requests, made
        new = np.flatnonzero(made > told)
        for request, count, pool in zip(requests[new].tolist(), made[new].tolist(), asked.pool[slots[new]].tolist()):
            self._send(float(fleet.now_s + self._egress_s[pool]), request, count, None)

    def _ended(self, rows: np.ndarray) -> None:
        """Attempts have ended: their callers hear of it when it has come to them."""
        for row in rows:
            self._send(float(row["finished_s"]), int(row["request"]), int(row["output_tokens"]), row)

    def _send(self, due_s: float, request: int, made: int, row: np.ndarray | None) -> None:
        heapq.heappush(self._due, (due_s, next(self._order), request, made, row))

    def _deliver(self) -> None:
        now_s = self.world.fleet.now_s
        while self._due and self._due[0][0] <= now_s:
            _, _, request, made, row = heapq.heappop(self._due)
            stream = self.streams.get(request)
            if row is not None:
                self.answered += 1
                self.streams.pop(request, None)
            if stream is not None:
                stream.tell(made, row)
