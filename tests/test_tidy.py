"""The house rules that no linter knows: who may import whom, how long is too long, and what never gets committed.

Each rule is a function from text to complaints, so that each can be shown to fail.
"""

import ast
import graphlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Which room stands on which floor. A room is a file or a folder of sim; loadtest is one room with its own front door.
LAYERS = {
    "sim": 0,
    "sim.errors": 0,
    "sim.interrupts": 0,
    "sim.lazy": 0,
    "sim.rng": 0,
    "sim.draws": 0,
    "sim.ids": 0,
    "sim.records": 0,
    "sim.units": 0,
    "sim.words": 0,
    "sim.workers": 0,
    "sim.exposition": 0,
    "sim.fetch": 0,
    "sim.scenario": 0,
    "sim.results": 0,
    "sim.series": 0,
    "sim.spool": 0,
    "sim.buckets": 0,
    "sim.code": 0,
    "sim.answers": 0,
    "sim.families": 0,
    "sim.claims": 0,
    "sim.theory": 0,
    "sim.engine": 1,
    "sim.workload": 1,
    "sim.quality": 1,
    "sim.telemetry": 1,
    "sim.alerts": 1,
    "sim.summary": 0,
    "sim.metastability": 0,
    "sim.conclude": 0,
    "sim.service": 2,
    "sim.tally": 2,
    "sim.cells": 2,
    "sim.world": 2,
    "sim.control": 2,
    "sim.calibrate": 2,
    "sim.run": 3,
    "sim.report": 3,
    "sim.planning": 3,
    "sim.init": 3,
    "sim.seed": 3,
    "loadtest": 3,
    "sim.commands": 4,
    "sim.cli": 4,
    "sim.__main__": 4,
    "loadtest.commands": 4,
    "loadtest.cli": 4,
    "loadtest.__main__": 4,
}
# Neighbours on one floor do not import each other, except these. The ground floor is many small files of one room.
NEIGHBOURS = {
    ("sim.planning", "sim.report"),
    ("sim.planning", "sim.run"),
    ("sim.seed", "sim.run"),
    ("sim.seed", "sim.report"),
    ("sim.world", "sim.control"),
    ("sim.world", "sim.service"),
    ("sim.calibrate", "sim.service"),
    ("sim.world", "sim.tally"),
    ("sim.world", "sim.cells"),
    ("sim.cells", "sim.tally"),
    ("loadtest", "sim.run"),
    ("loadtest", "sim.report"),
    ("loadtest.commands", "sim.commands"),
}
MAY_IMPORT_SIMPY = {"sim.world", "sim.control"}

LONGEST_FUNCTION = 60
LONGEST_FILE = 400

# Written in two halves, so that this file does not complain about itself.
MACHINE_PATH = re.compile(r"(?<![\w.*\-/])/(?:" + "work|root|tmp" + r"|home/\w+|Users/\w+)(?=[/\s\"'`,;:)\]]|$)")
REGISTRY = re.compile("|".join(["pypi" r"\.org", "python" "hosted", "arti" "factory", "jfr" r"og\.io", "index" "-url",
                                "find" "-links", "trusted" "-host", "file" ":///"]), re.IGNORECASE)  # fmt: skip
UNFINISHED = re.compile(r"\b(?:TO" "DO|FIX" r"ME)\b")


def product_files() -> list[Path]:
    """The Python files that users run."""
    return sorted(f for top in ("sim", "loadtest") for f in (ROOT / top).rglob("*.py"))


def tracked_files() -> list[Path]:
    """Every file that is or could be committed."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The room that *module* is in; None for a module of ours that the table does not name."""
    room = ".".join(module.split(".")[:2])
    if room not in LAYERS and room.startswith("loadtest."):
        room = "loadtest"
    return room if room in LAYERS else None


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name in LAYERS or path.is_dir() or path.with_suffix(".py").is_file()


def imported(source: str, module: str, package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the line and full name of everything that *module* imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if package and node.level == 1 else 1 - node.level - (not package)]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if is_module(whole) else base


def import_complaints(source: str, module: str, package: bool = False) -> list[str]:
    """What is wrong with the imports of one module."""
    room = room_of(module)
    if room is None:
        return [f"{module}: on no floor; give it one in LAYERS"]
    found = []
    for line, name in imported(source, module, package):
        where, top = f"{module}:{line}", name.partition(".")[0]
        if top == "simpy" and room not in MAY_IMPORT_SIMPY:
            found.append(f"{where}: only sim.world and sim.control import simpy")
        if top in ("locust", "gevent") and not room.startswith("loadtest"):
            found.append(f"{where}: only loadtest imports {top}")
        if top not in ("sim", "loadtest"):
            continue
        target = room_of(name)
        if target is None:
            found.append(f"{where}: {name} is on no floor")
        elif room.startswith("sim") and target.startswith("loadtest"):
            found.append(f"{where}: sim never imports loadtest")
        elif not may_import(room, target):
            found.append(f"{where}: {room} ({LAYERS[room]}) imports {target} ({LAYERS[target]}), not downwards")
    return found


def may_import(room: str, target: str) -> bool:
    ground = LAYERS[room] == LAYERS[target] == 0
    return room == target or LAYERS[target] < LAYERS[room] or ground or (room, target) in NEIGHBOURS


def length_complaints(source: str, name: str) -> list[str]:
    """Functions and files that have grown too long to read at once."""
    lines = len(source.splitlines())
    found = [f"{name}: {lines} lines"] if lines > LONGEST_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                found.append(f"{name}:{node.lineno} {node.name}: {length} lines")
    return found


def annotation_complaints(source: str, name: str) -> list[str]:
    """Functions that say no types, and are not left to Numba."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or any(
            ast.unparse(d) in ("kernel", "inlined") for d in node.decorator_list
        ):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if bare or (node.returns is None and node.name != "__init__"):
            found.append(f"{name}:{node.lineno} {node.name}: neither annotated nor compiled")
    return found


def text_complaints(text: str, name: str) -> list[str]:
    """What no committed file may contain."""
    rules = {"a machine's path": MACHINE_PATH, "a registry host": REGISTRY, "unfinished work": UNFINISHED}
    return [
        f"{name}:{number}: {what}: {hit.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, rule in rules.items()
        if (hit := rule.search(line))
    ]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, or an empty list."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_imports_go_downwards() -> None:
    found = []
    for path in product_files():
        found += import_complaints(path.read_text(), module_name(path), path.name == "__init__.py")
    assert found == []


def folders_without_init(files: list[Path]) -> set[Path]:
    """Folders whose modules a wheel would leave out."""
    return {file.parent for file in files} - {file.parent for file in files if file.name == "__init__.py"}


def test_every_folder_of_modules_is_a_package() -> None:
    assert folders_without_init(product_files()) == set()
    assert folders_without_init([Path("sim/__init__.py"), Path("sim/attic/old.py")]) == {Path("sim/attic")}


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {}
    for path in product_files():
        module = module_name(path)
        names = imported(path.read_text(), module, path.name == "__init__.py")
        imports[module] = {name for _, name in names if is_module(name)} - {module}
    assert circle(imports) == []


def test_functions_and_files_are_short() -> None:
    files = [*product_files(), *(ROOT / "benchmarks").rglob("*.py")]
    assert [c for path in files for c in length_complaints(path.read_text(), relative(path))] == []


def test_functions_are_annotated_or_compiled() -> None:
    assert [c for path in product_files() for c in annotation_complaints(path.read_text(), relative(path))] == []


def test_nothing_private_or_unfinished_is_committed() -> None:
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found += text_complaints(data.decode(errors="replace"), relative(path))
    assert found == []


def test_every_dependency_is_pinned_and_nothing_else_stands_in_the_constraints() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []
    pinned = {canonical(line.partition("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    assert {canonical(re.split(r"[^\w.-]", dependency)[0]) for dependency in wanted} - pinned == set()


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sim.engine.batch", "from sim.world import World"),
        ("sim.engine.batch", "from sim import world"),
        ("sim.engine.batch", "from sim.workload import compile"),
        ("sim.engine.batch", "def late():\n    import sim.report.figures"),
        ("sim.engine.batch", "from ..cli import main"),
        ("sim.rng", "import sim.engine.fleet"),
        ("sim.world", "import loadtest"),
        ("sim.report.html", "import loadtest.schedule"),
        ("sim.report.html", "import simpy"),
        ("sim.engine.fleet", "from simpy import Environment"),
        ("sim.workload.arrivals", "import locust"),
        ("loadtest.users", "from sim.cli import main"),
        ("sim.attic", "import math"),
    ],
)
def test_an_import_upwards_is_found(module: str, source: str) -> None:
    assert len(import_complaints(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sim.cli", "import sim.report, sim.world"),
        ("sim.world", "import simpy\nfrom sim.engine.fleet import Fleet\nfrom sim.control import faults"),
        ("sim.engine.batch", "from sim.engine.state import NONE\nfrom . import queues\nfrom sim import __version__"),
        ("sim.results", "from sim.scenario import dump"),
        ("loadtest.users", "import locust\nfrom sim.scenario import load"),
    ],
)
def test_an_import_downwards_is_welcome(module: str, source: str) -> None:
    assert import_complaints(source, module) == []


def test_relative_imports_are_understood() -> None:
    assert [name for _, name in imported("from .. import rng", "sim.engine.batch")] == ["sim.rng"]
    assert [name for _, name in imported("from .state import NONE", "sim.engine.batch")] == ["sim.engine.state"]
    assert [name for _, name in imported("from .state import NONE", "sim.engine", True)] == ["sim.engine.state"]
    assert [name for _, name in imported("from ..rng import stream", "sim.engine", True)] == ["sim.rng"]


def test_a_circle_is_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}})) == {"b", "c", "d"}
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_a_long_function_and_a_long_file_are_found() -> None:
    at_the_limit = "def f():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)
    assert length_complaints(at_the_limit, "f.py") == []
    assert length_complaints(at_the_limit + "    pass\n", "f.py") == [f"f.py:1 f: {LONGEST_FUNCTION + 1} lines"]
    assert length_complaints("x = 1\n" * (LONGEST_FILE + 1), "f.py") == [f"f.py: {LONGEST_FILE + 1} lines"]


def test_a_function_without_types_is_found() -> None:
    assert annotation_complaints("def f(x: int) -> None: ...\n@kernel\ndef g(x): ...", "f.py") == []
    assert len(annotation_complaints("def f(x) -> None: ...\ndef g(): ...", "f.py")) == 2


@pytest.mark.parametrize(
    "line",
    [
        "open('/" "work/x')",
        "cd /" "root",
        "/" "tmp/run",
        "/" "home/ada/data",
        "see https://" "pypi" ".org/simple",
        "--extra-" "index" "-url x",
        "# TO" "DO later",
        "FIX" "ME",
    ],
)  # fmt: skip
def test_a_private_or_unfinished_line_is_found(line: str) -> None:
    assert len(text_complaints(line, "f.py")) == 1


@pytest.mark.parametrize("line", ["/workers/x", "a/work/b", "./tmp/x", "the /rooted tree", "../shared/data", "todos"])
def test_an_ordinary_line_is_not_found(line: str) -> None:
    assert text_complaints(line, "f.py") == []
