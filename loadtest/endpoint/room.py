"""Where callers wait while the fleet plays: one stream for each, and a tick that tells it how far its answer is."""

import heapq
import itertools
import select
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
from gevent.event import Event

from loadtest.endpoint.callers import Call
from loadtest.endpoint.clock import Clock
from loadtest.endpoint.live import Live
from loadtest.endpoint.progress import TOLD, find_news, next_s, next_step_s
from loadtest.endpoint.recording import Recording
from sim.engine.state import grown, records
from sim.scenario import Scenario

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


class Stream:
    """One answer on its way: *made* tokens of it are there, and when it has ended, its *row* is."""

    def __init__(self, asked: np.ndarray, capped: bool, sock: Any) -> None:
        """Begin to wait for what the row *asked* (`sim.records.REQUEST`) asks; its caller is behind *sock*.

        *capped*: the caller's limit on output tokens ends the answer.
        """
        self.request = int(asked["request"])
        self.asked = asked
        self.made = 0
        self.row: np.ndarray | None = None
        self.left = False
        self.capped = capped
        self.sock = sock
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
        self._ids = itertools.count(1)
        self._due: list[tuple[float, int, int, int, np.ndarray | None]] = []
        self._order = itertools.count()
        self._told = records(TOLD, 0)
        self._found = np.zeros(0, np.int64)
        self._egress_s = [float(pool.egress_s) for pool in self.world.fleet.pools]

    def ask(self, call: Call, sock: Any) -> Stream:
        """Let *call* arrive now through *sock*, and return the stream of its answer.

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
        stream = self.streams[request] = Stream(row[0], int(row[0]["output_tokens"]) == call.most, sock)
        self.arrived.set()
        return stream

    def leave(self, stream: Stream) -> None:
        """Let the caller of *stream* be gone; the engine hears of it at the next tick, unless it has answered."""
        if self.streams.pop(stream.request, None) is not None and stream.row is None:
            stream.left = True
            self._left.append(stream.request)

    def tick(self) -> None:
        """Bring the world up to the clock, and tell every caller what there is of its answer."""
        now_s = self.clock.now_s()
        if self._come or self._left or self._next_s() <= now_s:
            self.catch_up(now_s)
        self._look(now_s)
        self._deliver(now_s)

    def rest_s(self) -> float:
        """Return how long, in wall seconds, nothing will happen that anybody waits for; whoever comes may end it."""
        now_s = self.clock.now_s()
        due_s = self._due[0][0] if self._due else np.inf
        at_s = min(self._next_s(), float(next_step_s(self.world.fleet.reps, now_s)), due_s)
        return max(0.0, at_s - now_s) / self.clock.speed

    def catch_up(self, now_s: float) -> None:
        """Let all happen up to *now_s*, with those who have come and gone meanwhile."""
        if self._come:
            self.world.fleet.submit(np.concatenate(self._come))
            self._come.clear()
        self.world.chase(now_s)
        left, self._left = self._left, []
        for request in left:
            if self.world.leave(request):
                self.recording.left(now_s, request)

    def _next_s(self) -> float:
        fleet = self.world.fleet
        return min(float(next_s(fleet.w[0], fleet.reps, fleet.events, fleet.tree)), float(self.world.peek()))

    def values(self) -> np.ndarray:
        """Return what every series of the world's scraper shows now (m,)."""
        self.catch_up(max(self.clock.now_s(), self.world.fleet.now_s))
        return self.world.values()

    def act(self, action: Callable[[], None]) -> float:
        """Bring the world up to the clock and let *action* happen in it; return when that was."""
        self.catch_up(now_s := max(self.clock.now_s(), self.world.fleet.now_s))
        action()
        self.world.chase(now_s)
        return now_s

    def hang_up(self) -> None:
        """Let those be gone whose connection is."""
        waiting = {one.sock.fileno(): one for one in self.streams.values() if one.row is None}
        poll = select.poll()
        for number in waiting:
            if number >= 0:
                poll.register(number, select.POLLIN)
        heard = [number for number, _ in poll.poll(0)] + [number for number in waiting if number < 0]
        for stream in [waiting[number] for number in heard]:
            if not _is_open(stream.sock):
                self.leave(stream)
                stream.tell(0, None)

    def _look(self, now_s: float) -> None:
        """See how many tokens there are of every answer: steps ended since its decoding began."""
        fleet = self.world.fleet
        if len(self._told) < len(fleet.asked):
            self._told, self._found = grown(self._told, len(fleet.asked)), np.zeros(len(fleet.asked), np.int64)
        n = find_news(fleet.reps, fleet.seqs, fleet.asked, now_s, self._told, self._found)
        if n:
            slots = self._found[:n]
            told, pools = self._told[slots], fleet.asked["pool"][slots]
            for request, made, pool in zip(told["request"].tolist(), told["made"].tolist(), pools.tolist()):
                self._send(now_s + self._egress_s[pool], request, made, None)

    def _ended(self, rows: np.ndarray) -> None:
        """Attempts have ended: their callers hear of it when it has come to them."""
        for row in rows:
            self._send(float(row["finished_s"]), int(row["request"]), int(row["output_tokens"]), row)

    def _send(self, due_s: float, request: int, made: int, row: np.ndarray | None) -> None:
        heapq.heappush(self._due, (due_s, next(self._order), request, made, row))

    def _deliver(self, now_s: float) -> None:
        """Tell callers what is due; first those without a token yet, for whom a millisecond is a share of the wait.

        All streams of a replica get their tokens at the same instant, and writing two hundred takes milliseconds.
        """
        due = []
        while self._due and self._due[0][0] <= now_s:
            due.append(heapq.heappop(self._due))
        due.sort(key=lambda one: one[2] in self.streams and self.streams[one[2]].made > 0)
        for _, _, request, made, row in due:
            stream = self.streams.get(request)
            if row is not None:
                self.answered += 1
                self.streams.pop(request, None)
            if stream is not None:
                stream.tell(made, row)


def _is_open(sock: Any) -> bool:
    """Tell whether the other side of *sock* is still there; nothing is taken from what it may have sent."""
    try:
        return bool(sock._sock.recv(1, _PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
