"""Every command that README, tutorial and how-tos show is typed here, in order, in a copy of the repository.

Commands stand in fenced blocks marked ``console``, on lines that start with ``$ ``; a backslash at the end goes on.
A block whose fence names a file (```` ```yaml chat.yaml ````) is that file, and is written before what comes after it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 300
PAGES = ["README.md", "docs/tutorial.md", *(f"docs/how-to/{path.name}" for path in (ROOT / "docs/how-to").glob("*.md"))]

# Not typed: what fetches from the network, builds what the test stands in, or only moves the reader's own shell.
NOT_TYPED = re.compile(r"(make|git|pip|python3? -m (venv|pip)|cd|source|export|curl|docker|apt-get)\b|.*https?://")

BLOCK = re.compile(r"^```(\w+)(?: ([\w.-]+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Step(NamedTuple):
    """A command to type, or a *file* to write with *text* in it."""

    text: str
    file: str = ""


def steps(text: str) -> list[Step]:
    """What a reader of the page does, in order."""
    found: list[Step] = []
    for kind, file, inside in BLOCK.findall(text):
        if file:
            found.append(Step(inside, file))
        elif kind == "console":
            found += [Step(command) for command in commands(inside) if not NOT_TYPED.match(command)]
    return found


def commands(block: str) -> list[str]:
    """The commands of a console block."""
    found: list[str] = []
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


def copy_of_the_repository(into: Path) -> Path:
    """Copy what would be committed, with the environment that runs this test as its ``.venv``."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached"]  # not what a user has left lying about
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


def do(step: Step, folder: Path) -> subprocess.CompletedProcess[str] | None:
    """Write the file or type the command."""
    if step.file:
        (folder / step.file).write_text(step.text)
        return None
    return run(step.text, folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works(page: str, tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = copy_of_the_repository(tmp_path)
    for step in steps((ROOT / page).read_text()):
        done = do(step, folder)
        assert done is None or done.returncode == 0, f"$ {step.text}\n{done.stdout}{done.stderr}"


def test_the_readme_and_the_tutorial_show_commands() -> None:
    for page in PAGES[:2]:
        assert [step for step in steps((ROOT / page).read_text()) if not step.file], page


def test_commands_are_read_from_console_blocks_only() -> None:
    text = "```console\n$ one\nits output\n$ two \\\n    more\nits output\n```\n```sh\n$ not this\n```\n$ nor this\n"
    assert steps(text) == [Step("one"), Step("two \\\n    more")]


def test_a_block_that_names_a_file_is_written_in_its_turn(tmp_path: Path) -> None:
    page = "```yaml\nnot: this\n```\n```console\n$ true\n```\n```yaml a.yaml\nname: a\n```\n"
    page += "```console\n$ cat a.yaml\n```\n"
    assert [step.file for step in steps(page)] == ["", "a.yaml", ""]
    done = [do(step, tmp_path) for step in steps(page)]
    assert done[-1] is not None
    assert done[-1].stdout == "name: a\n"


def test_commands_that_fetch_or_build_are_not_typed() -> None:
    skipped = "$ make demo\n$ git clone x\n$ cd blowout\n$ blowout init http://gpu:8000/metrics\n"
    assert steps(f"```console\n{skipped}$ blowout run x.yaml\n```\n") == [Step("blowout run x.yaml")]


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    assert run("false", tmp_path).returncode != 0
    assert run("false | true", tmp_path).returncode != 0
    assert run("no-such-command", tmp_path).returncode != 0
