"""Starts the test server as a process of its own, and types commands, for the tests of load tests."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOWOUT = [sys.executable, "-c", "from sim.cli import main; main()"]
PATIENCE_S = 120.0
"""With one command or one start: a busy machine takes ten times as long as a quiet one."""


@contextmanager
def target(folder: Path, *options: str) -> Iterator[str]:
    """Run the server with *options*; yield its address."""
    address = folder / f"address-{time.monotonic_ns()}"
    command = [sys.executable, str(ROOT / "tests" / "sse_server.py"), str(address), *options]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until_s = time.monotonic() + PATIENCE_S
        while not (address.exists() and address.read_text()):
            assert server.poll() is None, "the server did not start"
            assert time.monotonic() < until_s, "the server did not start in time"
            time.sleep(0.05)
        yield address.read_text()
    finally:
        server.kill()
        server.wait(10)


def typed(arguments: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type ``blowout ...`` in *folder*."""
    return subprocess.run(
        [*BLOWOUT, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
