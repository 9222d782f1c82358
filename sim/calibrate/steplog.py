"""What an engine's own log says of its steps: how many sequences and tokens each computed, and how long that took.

vLLM writes one line a step with `--enable-logging-iteration-details`: requests and tokens of prompts (`ctx`),
requests and tokens of generation (`gen`, which includes the recomputation of preempted requests), and the time
that the model took. The line is stamped when the API server writes it, so stamps come late by a random bit.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS = (
    "t_logged_s", "iteration", "ctx_requests", "ctx_tokens", "gen_requests", "gen_tokens", "elapsed_ms", "kv_usage_pct",
)  # fmt: skip
"""Of a log as CSV, one row a step; ``t_logged_s`` in seconds since the start of the run."""
STEP = re.compile(
    r"Iteration\((\d+)\): (\d+) context requests, (\d+) context tokens, (\d+) generation requests, "
    r"(\d+) generation tokens, iteration elapsed time: ([\d.]+) ms, \S+ KV cache usage: ([\d.]+)%"
)
"""A step in vLLM 0.32's log (`vllm/v1/metrics/loggers.py`)."""
STAMP = re.compile(r"(\d{9,}\.\d+)\s|(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+(?:Z|[+-]\d\d:?\d\d)?)\s")
"""What stands before it: Unix seconds, or date and time as `docker logs -t` and `kubectl logs --timestamps` do."""
FARTHEST_BACK_S = 1.0
"""Stamps come a little out of order when the writer was busy; farther back, something else is wrong."""
PAUSE_S = 10.0
"""Between logs that are put together."""


@dataclass(frozen=True, eq=False)
class StepLog:
    """The steps of one engine in order; times in seconds since the start of the run, one entry a step.

    A step took *took_s* up to *end_s*: schedule, model, update and the way to the API server. It computed *prompt*
    tokens and one token for each of *decoding* sequences. *admits* prompts, *fresh* tokens of prompts that have no
    output yet. *busy*: the step before left sequences in the batch. *used*: share of the KV blocks after the step.
    *between_s*: the usual time from the end of the model in one step to its beginning in the next.
    """

    end_s: Floats
    took_s: Floats
    decoding: Ints
    prompt: Ints
    admits: Ints
    fresh: Ints
    running: Ints
    tokens: Ints
    busy: NDArray[np.bool_]
    used: Floats
    between_s: float = 0.0

    def __len__(self) -> int:
        return len(self.end_s)

    @property
    def start_s(self) -> Floats:
        """When each step began."""
        return self.end_s - self.took_s


def read_steps(path: Path, started: float | None = None, until_s: float = math.inf) -> StepLog:
    """Return the steps in the log at *path*: vLLM's own, or a CSV with `COLUMNS`.

    Of vLLM's own only those from *started* (Unix time of the start of the run) on, for *until_s* seconds.

    Raises:
        InputError: it cannot be read, is of another engine, or its times go backwards; names file and line.
    """
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            first = lines.readline()
            lines.seek(0)
            is_table = "t_logged_s" in first
            rows, numbers = _of_table(path, lines) if is_table else _of_log(path, lines)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not is_table:
        if started is None:
            raise InputError(
                f"{path}: its steps are stamped with the time of day, and when the run began is not known; expected "
                f"a run that says so, or a CSV with {', '.join(COLUMNS)}"
            )
        rows[:, 0] -= started
        inside = (rows[:, 0] >= 0) & (rows[:, 0] <= until_s)
        if not inside.any():
            raise InputError(f"{path}: none of its {len(rows):,} steps was logged while the run went on")
        rows, numbers = rows[inside], numbers[inside]
    back = np.flatnonzero(np.diff(rows[:, 0]) < -FARTHEST_BACK_S)
    if len(back):
        k = int(back[0]) + 1
        raise InputError(
            f"{path}, line {numbers[k]}: times go backwards, from {rows[k - 1, 0]:.3f} s to {rows[k, 0]:.3f} s; "
            "expected the log of one engine, in the order in which it was written"
        )
    return _steps(rows)


def _of_table(path: Path, lines: Sequence[str] | object) -> tuple[Floats, Ints]:
    """Return the columns of a CSV in the order of `COLUMNS`, and the line of each row."""
    reader = csv.DictReader(lines)  # type: ignore[arg-type]
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
    rows = []
    for row in reader:
        try:
            rows.append([float(row[name]) for name in COLUMNS])
        except (TypeError, ValueError):
            name = next(name for name in COLUMNS if not _is_number(row[name]))
            raise InputError(
                f"{path}, line {reader.line_num}, column {name!r}: expected a number, got {row[name]!r}"
            ) from None
    if not rows:
        raise InputError(f"{path}: holds no steps")
    return np.array(rows), np.arange(2, len(rows) + 2)


def _of_log(path: Path, lines: object) -> tuple[Floats, Ints]:
    """Return the steps of vLLM's own log in the order of `COLUMNS`, stamped in Unix seconds, and the line of each."""
    rows, numbers = [], []
    for number, text in enumerate(lines, start=1):  # type: ignore[arg-type, var-annotated]
        if (found := STEP.search(text)) is None:
            continue
        stamp = STAMP.match(text)
        if stamp is None:
            raise InputError(
                f"{path}, line {number}: expected the time to the millisecond before each step, as Unix seconds or as "
                "`docker logs -t` and `kubectl logs --timestamps` put it; vLLM's own format has whole seconds"
            )
        rows.append([_unix_s(stamp), *map(float, found.groups())])
        numbers.append(number)
    if not rows:
        raise InputError(
            f"{path}: holds no steps of vLLM; expected a log written with --enable-logging-iteration-details "
            f"(vLLM 0.19 or later), or a CSV with {', '.join(COLUMNS)}"
        )
    return np.array(rows), np.array(numbers)


def _unix_s(stamp: "re.Match[str]") -> float:
    if stamp[1]:
        return float(stamp[1])
    text = stamp[2].replace(",", ".").replace("Z", "+00:00")
    text = re.sub(r"(\.\d{6})\d+", r"\1", text)  # Python counts microseconds
    return datetime.fromisoformat(text).timestamp()


def _is_number(text: str | None) -> bool:
    try:
        return math.isfinite(float(text or ""))
    except ValueError:
        return False


def _steps(rows: Floats) -> StepLog:
    """Return the steps of *rows*, shape (steps, `COLUMNS`).

    A step that starts when the engine was busy took the whole time since the end of the one before: so the time
    between steps is counted exactly once. After an idle engine it took its model time and the usual time between.
    A line is never later than the next step's beginning: stamps are moved back to there.
    """
    end_s, model_s = rows[:, 0].copy(), rows[:, 6] * 1e-3
    admits, fresh, generating, generated = (rows[:, k].astype(np.int64) for k in (2, 3, 4, 5))
    for i in range(len(end_s) - 2, -1, -1):
        end_s[i] = min(end_s[i], end_s[i + 1] - model_s[i + 1])
    busy = generating > 0
    busy[0] = False
    since_s = np.diff(end_s, prepend=-np.inf)
    between_s = float(np.median((since_s - model_s)[busy])) if busy.any() else 0.0
    took_s = np.where(busy, since_s, np.minimum(since_s, model_s + between_s))
    again = generated - generating  # beyond one token each: a preempted one recomputes
    resumed = (again > 0).astype(np.int64)
    return StepLog(
        end_s=end_s,
        took_s=took_s,
        decoding=generating - resumed,
        prompt=fresh + again + resumed,
        admits=admits,
        fresh=fresh,
        running=generating + admits,
        tokens=fresh + generated,
        busy=busy,
        used=rows[:, 7] * 0.01,
        between_s=max(between_s, 0.0),
    )


def together(logs: Sequence[StepLog]) -> StepLog:
    """Return several logs as one, each after the other with a pause between."""
    shift_s, parts = 0.0, []
    for log in logs:
        parts.append({**vars(log), "end_s": log.end_s + shift_s})
        shift_s += float(log.end_s[-1]) + PAUSE_S
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "between_s"}
    return StepLog(**arrays, between_s=float(np.median([log.between_s for log in logs])))
