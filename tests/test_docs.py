"""The pages say what the code says: every link leads somewhere, and references name all there is, and nothing more."""

import re
from pathlib import Path

import click
import numpy as np
import pytest

from sim import results, summary
from sim.cli import COMMANDS
from sim.commands import run as run_command
from sim.lazy import Lazy
from sim.records import ATTEMPT, PARTS, Answerer, Outcome
from sim.scenario import loads
from sim.scenario.reference import markdown
from sim.world import simulate

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LINK = re.compile(r"\]\(([^()\s]+)\)")
BY_HAND = "<!-- From here on: `python -m sim.scenario.reference`. tests/test_docs.py compares. -->\n\n"


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of *page*."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.M
    )
    return {"".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_") for heading in headings}


def broken(page: Path) -> list[str]:
    """Links of *page* to files or headings that do not exist; addresses elsewhere are not followed."""
    found = []
    for link in LINK.findall(without_code(page.read_text())):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def documented(page: str) -> set[str]:
    """Every word in backticks on a reference page."""
    return set(re.findall(r"`([^`\n]+)`", (DOCS / "reference" / page).read_text()))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# The top\n[b](b.md) [c](#the-top) [d](#the-end) `[e](e.md)` [f](https://example.org)\n")
    assert broken(page) == ["b.md", "#the-end"]


def test_every_page_of_the_docs_can_be_reached() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for link in LINK.findall(without_code(page.read_text())):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                todo.append(target)
    assert [relative(page) for page in PAGES if page not in reached] == []


def test_the_scenario_reference_is_what_the_models_say() -> None:
    page = (DOCS / "reference" / "scenario.md").read_text()
    assert page.partition(BY_HAND)[2] == markdown(), "write it again: python -m sim.scenario.reference"


def test_every_metric_is_documented() -> None:
    said = documented("metrics.md")
    for metric in summary.metric_names([]):
        name, _, statistic = metric.rpartition("_")
        assert metric in said or (name in said and statistic in said), metric


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "reference" / "cli.md").read_text()
    group = Lazy(lazy=COMMANDS)
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        section = re.search(rf"^## `blowout {name}\b.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
        assert section, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert any(option in section[0] for option in parameter.opts), f"{name} {parameter.opts}"
    options = set(
        re.findall(r"`(--[a-z-]+)", re.search(r"## `blowout run.*?(?=^## )", page, re.DOTALL | re.MULTILINE)[0])
    )
    assert options == {parameter.opts[0] for parameter in run_command.command.params if parameter.opts[0][0] == "-"}


def test_every_column_of_the_rows_is_documented() -> None:
    page = (DOCS / "reference" / "run-folder.md").read_text()
    for name in ATTEMPT.names or ():
        assert f"`{name}`" in page, name
        if name not in PARTS:
            assert f"| `{name}` | {ATTEMPT[name].name} |" in page, f"{name} is {ATTEMPT[name]}"
    for kind in (Outcome, Answerer):
        assert ", ".join(f"{one.value} {one.name.lower()}" for one in kind) in page
    assert {name for name in results.SERIES if f"`{name}`" not in page} == set()


def test_every_file_and_histogram_of_a_run_is_documented(tmp_path: Path) -> None:
    said = documented("run-folder.md")
    text = """
name: a
duration: 60s
fleet: {kv_blocks: 99, step_time: {linear: {base: 10ms}}}
workload: {rate_per_s: 1, cohorts: {a: {prompt_tokens: 9, output_tokens: 9}}}
"""
    simulate(loads(text), 1, tmp_path)
    arrays = np.load(tmp_path / "histograms.npz")
    assert set(arrays.files) <= said
    page = (DOCS / "reference" / "run-folder.md").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name not in page] == []
    for name in ("ttft", "itl", "edges_s", "ttft_by_window", "parts_all"):
        shape = arrays[name].shape
        written = re.search(rf"^\|[^|]*`{name}`[^|]*\| \(([^)]*)\)", page, re.MULTILINE)
        assert written, name
        given = [part.strip() for part in written[1].split(",") if part.strip()]
        assert [part for part, size in zip(given, shape, strict=True) if part.isdigit() and int(part) != size] == [], (
            name
        )


def test_every_decision_is_listed() -> None:
    listed = LINK.findall((DOCS / "decisions" / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))


def test_leaping_changes_nothing_as_the_page_says() -> None:
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "explanation" / "engine.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert "leap=False" in snippet
    exec(snippet, {})
