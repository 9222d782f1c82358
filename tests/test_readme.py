"""Every command that the README shows is typed here, in order, in a copy of the repository.

Commands stand in fenced blocks marked ``console``, on lines that start with ``$ ``; a backslash at the end goes on.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 300

# Not typed: what fetches from the network, builds what the test stands in, or only moves the reader's own shell.
NOT_TYPED = re.compile(r"(make|git|pip|python3? -m (venv|pip)|cd|source|export|curl|docker|apt-get)\b|.*https?://")


def commands(text: str) -> list[str]:
    """The commands of all console blocks, in order."""
    found: list[str] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        goes_on = False
        for line in block.splitlines():
            if goes_on:
                found[-1] += "\n" + line
            elif line.startswith("$ "):
                found.append(line[2:])
            else:
                continue
            goes_on = line.endswith("\\")
    return found


def typed(text: str) -> list[str]:
    return [command for command in commands(text) if not NOT_TYPED.match(command)]


def copy_of_the_repository(into: Path) -> Path:
    """Copy what would be committed, with the environment that runs this test as its ``.venv``."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    (into / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    return into


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )


@pytest.mark.slow
def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("there is no README.md yet")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = copy_of_the_repository(tmp_path)
    to_type = typed(readme.read_text())
    assert to_type, "the README shows no command in a console block"
    for command in to_type:
        done = run(command, folder)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"


def test_commands_are_read_from_console_blocks_only() -> None:
    text = "```console\n$ one\nits output\n$ two \\\n    more\nits output\n```\n```sh\n$ not this\n```\n$ nor this\n"
    assert commands(text) == ["one", "two \\\n    more"]


def test_commands_that_fetch_or_build_are_not_typed() -> None:
    skipped = "$ make demo\n$ git clone x\n$ cd blowout\n$ blowout init http://gpu:8000/metrics\n"
    assert typed(f"```console\n{skipped}$ blowout run x.yaml\n```\n") == ["blowout run x.yaml"]


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    assert run("false", tmp_path).returncode != 0
    assert run("false | true", tmp_path).returncode != 0
    assert run("no-such-command", tmp_path).returncode != 0
