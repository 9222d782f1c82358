"""What every test may ask for: where the repository is, measured data if this machine has it, quiet figures."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, settings

from sim.report import printing
from tests.narrow import WIDTHS, owed

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("MPLBACKEND", "Agg")  # no test opens a window

# The same examples every time, so that a red build is about the change; HYPOTHESIS_PROFILE=explore goes looking.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "explore", settings.get_profile("same"), derandomize=False, max_examples=1000, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's own folder."""
    return ROOT


@pytest.fixture(scope="session")
def measured() -> Path:
    """Traces and measured runs, kept beside the repository and never in it; a test that needs them skips without."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no traces or measured runs beside the repository (../shared/data)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _narrow() -> Iterator[None]:
    """Hold every table that any test prints against what it owes to terminals of other widths."""
    as_it_is = printing.show

    def show(blocks: Sequence[printing.Block], commands: Sequence[tuple[str, str]], file: IO[str]) -> None:
        for _, lines in blocks:
            for table in lines:
                if isinstance(table, printing.Beside):
                    for width in WIDTHS:
                        owed(table, width)
        as_it_is(blocks, commands, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printing, "show", show)
        yield
