"""What one core of `blowout serve` holds: streams at once, tokens a second, and how late it is for its own engine.

``python -m benchmarks.serve [--seconds 20]`` starts a server for each of several loads, and is its client. Streams are
as many sockets that ask for 100 tokens again and again; step times are set so that each gets a known rate.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gevent
import numpy as np
import psutil
from gevent import socket

LOADS = ((50, 20.0), (200, 26.0), (200, 52.0), (400, 26.0))
"""Streams, and tokens a second of each."""
OUTPUT_TOKENS = 100
STAMPS = re.compile(rb": blowout (\{.*\})")


def scenario(streams: int, rate: float) -> str:
    """Return a service whose step takes the same time whatever is in the batch."""
    return f"""
name: bench
duration: 1h
fleet:
  replicas: 1
  kv_blocks: 100000
  max_num_seqs: {streams}
  max_num_batched_tokens: 8192
  step_time: {{linear: {{base: {1000.0 / rate}ms}}}}
workload:
  rate_per_s: 1
  cohorts: {{all: {{prompt_tokens: 16, output_tokens: {OUTPUT_TOKENS}}}}}
"""


class Caller:
    """Asks again and again over one connection, and counts."""

    def __init__(self, port: int) -> None:
        self.port, self.tokens = port, 0
        self.noise_s: list[float] = []
        """TTFT here, less what it took the engine."""
        self.way_s: list[float] = []
        """The same, less by how much the server was behind its engine when it wrote the first token."""
        self.stamps: list[dict[str, float]] = []
        body = json.dumps({"prompt": list(range(16)), "max_tokens": OUTPUT_TOKENS, "ignore_eos": True, "stream": True})
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = (head + body).encode()

    def run(self) -> None:
        """Ask until killed."""
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            sent_s, first_s, rest = time.monotonic(), 0.0, b""
            sock.sendall(self._request)
            while not rest.endswith(b"0\r\n\r\n"):
                data = sock.recv(65536)
                tokens = data.count(b'"text"')
                if tokens and not first_s:
                    first_s = time.monotonic()
                self.tokens += tokens
                rest = (rest + data)[-2048:]
            found = STAMPS.search(rest)
            stamps = json.loads(found[1]) if found else {}
            if stamps:
                self.stamps.append(stamps)
                noise_s = first_s - sent_s - (stamps["first_token_s"] - stamps["arrived_s"])
                self.noise_s.append(noise_s)
                self.way_s.append(noise_s - stamps["first_token_late_s"])


def measure(streams: int, rate: float, seconds: float, folder: Path) -> str:
    """Return a row of the table."""
    path = folder / "bench.yaml"
    path.write_text(scenario(streams, rate))
    command = [str(Path(sys.prefix) / "bin" / "blowout"), "serve", str(path), "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
        callers = [Caller(port) for _ in range(streams)]
        lap_s = OUTPUT_TOKENS / rate
        running = [gevent.spawn_later(lap_s * k / streams, caller.run) for k, caller in enumerate(callers)]
        gevent.sleep(lap_s + 1.0)
        process = psutil.Process(server.pid)
        for caller in callers:
            caller.stamps, caller.noise_s, caller.way_s = [], [], []
        begun, tokens = time.monotonic(), sum(caller.tokens for caller in callers)
        cpu = sum(process.cpu_times()[:2])
        gevent.sleep(seconds)
        took_s = time.monotonic() - begun
        tokens = sum(caller.tokens for caller in callers) - tokens
        cpu = sum(process.cpu_times()[:2]) - cpu
        gevent.killall(running)
    finally:
        server.terminate()
        server.wait(20)
    stamps = [one for caller in callers for one in caller.stamps]
    columns = [
        [one["finished_late_s"] for one in stamps],
        [one["first_token_late_s"] for one in stamps],
        [one for caller in callers for one in caller.noise_s],
        [one for caller in callers for one in caller.way_s],
    ]
    quantiles = (np.quantile(np.array(one or [np.nan]), [0.5, 0.99]) * 1000 for one in columns)
    rates = f"{streams * rate:,.0f} | {tokens / took_s:,.0f} | {cpu / took_s:.0%} | {cpu / max(1, tokens) * 1e6:.0f}"
    return f"| {streams} | {rates} | {' | '.join(f'{a:.1f} / {b:.1f}' for a, b in quantiles)} |"


def main() -> None:
    """Print how many tokens a second the endpoint sends to how many streams, and what of a core it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each load is measured")
    seconds = parser.parse_args().seconds
    print("All but the first five columns are ms, P50 / P99.")
    print("| streams | tokens/s asked | received | server CPU | us a token | last token late | first token late "
          "| TTFT error, engine's stamp | TTFT error, server's writing |")  # fmt: skip
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for streams, rate in LOADS:
            print(measure(streams, rate, seconds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
