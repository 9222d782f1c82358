"""A real Prometheus for tests: on 127.0.0.1 on a free port, fed by remote write, asked over HTTP, stopped by pid.

Backfilling OpenMetrics cannot write stale markers; remote write carries every bit of a sample.
"""

import json
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.series import SeriesSet

BATCH_MS = 600_000  # all series of ten minutes go in one request, so that no sample is older than what is there


def binary(name: str) -> str:
    """The path of promtool or prometheus, or a skip."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"no {name}: install Debian's package prometheus")
    return found


class Server:
    """One that answers on *port*."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def write(self, series: SeriesSet) -> None:
        """Send every sample, oldest first."""
        first, last = series.span_ms
        for start in range(first, last + 1, BATCH_MS):
            parts = []
            for labels, t_ms, values in series:
                low, high = np.searchsorted(t_ms, (start, start + BATCH_MS))
                if high > low:
                    parts.append(_field(1, _timeseries(labels, t_ms[low:high], values[low:high])))
            request = urllib.request.Request(
                f"{self.url}/api/v1/write",
                _snappy(b"".join(parts)),
                {
                    "Content-Encoding": "snappy",
                    "Content-Type": "application/x-protobuf",
                    "X-Prometheus-Remote-Write-Version": "0.1.0",
                },
            )
            with urllib.request.urlopen(request, timeout=30):
                pass

    def ask(self, path: str, **parameters: Any) -> Any:
        """The result of a query; an error is one."""
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, timeout=60) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def range(self, query: str, t_ms: np.ndarray) -> dict[tuple[tuple[str, str], ...], dict[int, float]]:
        """Every point of *query* at regular times: {labels: {ms: value}}."""
        step = int(t_ms[1] - t_ms[0])
        found = self.ask("query_range", query=query, start=t_ms[0] / 1000, end=t_ms[-1] / 1000, step=step / 1000)
        return {
            tuple(sorted(one["metric"].items())): {round(t * 1000): float(v) for t, v in one["values"]} for one in found
        }

    def instant(self, query: str, t_ms: int) -> dict[tuple[tuple[str, str], ...], dict[int, float]]:
        """The points of *query* at one time."""
        found = self.ask("query", query=query, time=t_ms / 1000)
        if found and isinstance(found[0], float | int):  # a scalar is answered as [time, value]
            return {(): {t_ms: float(str(found[1]))}}
        return {tuple(sorted(one["metric"].items())): {t_ms: float(one["value"][1])} for one in found}


@contextmanager
def running(folder: Path, config: str = "global: {}") -> Iterator[Server]:
    """A Prometheus that keeps its data in *folder*/data, as long as the block lasts."""
    program = binary("prometheus")
    (folder / "prometheus.yml").write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=error",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = Server(port)
            deadline = time.monotonic() + 30
            while not server.ready():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "prometheus did not get ready"
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait(30)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _timeseries(labels: dict[str, str], t_ms: np.ndarray, values: np.ndarray) -> bytes:
    pairs = b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(labels.items()))
    bits = values.view(np.uint64)
    samples = (
        _field(2, b"\x09" + struct.pack("<Q", int(bit)) + b"\x10" + _varint(int(t))) for t, bit in zip(t_ms, bits)
    )
    return pairs + b"".join(samples)


def _snappy(data: bytes) -> bytes:
    """Snappy's format without its compression: literals only."""
    out = [_varint(len(data))]
    for start in range(0, len(data), 65536):
        part = data[start : start + 65536]
        out.append(bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part)
    return b"".join(out)
