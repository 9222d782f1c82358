"""How Locust is started: nothing here imports it."""

import sys
from pathlib import Path

PLAN = "BLOWOUT_PLAN"
"""Environment variable that names the file of a plan."""


def command_of(workers: int) -> list[str]:
    """Return the command line of Locust with so many sending processes, one schedule split between them."""
    file = str(Path(__file__).with_name("locustfile.py"))
    options = ["--headless", "--users", str(workers), "--spawn-rate", str(workers), "--stop-timeout", "0"]
    options += ["--host", "http://the-plan-says", "--only-summary", "--exit-code-on-error", "0"]
    if workers > 1:
        port = str(_free_port())
        options += ["--processes", str(workers), "--master-bind-host", "127.0.0.1"]
        options += ["--master-bind-port", port, "--master-port", port]
    return [sys.executable, "-m", "locust", "-f", file, *options]


def _free_port() -> int:
    """Return a port that is free now, so that two load tests on one machine have masters of their own."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
