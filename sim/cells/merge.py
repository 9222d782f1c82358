"""Many cells, one run: tallies are added, and files strung together a piece at a time, so that memory stays flat."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from sim import results, series
from sim.scenario import Scenario
from sim.tally import Tally

TALLY = "tally.npz"


def folder_of(member: Path, number: int) -> Path:
    """Return where cell *number* keeps its files while the run of all cells is not whole: below that *member*."""
    return member / "cells" / str(number)


def merge(scenario: Scenario, member: Path) -> None:
    """Make one run in folder *member* of the cells of *scenario* below it, and take their folders away."""
    folders = [folder_of(member, number) for number in range(scenario.fleet.cells)]
    _rows([folder / "attempts.parquet" for folder in folders], member / "attempts.parquet")
    _scrapes([folder / "series.parquet" for folder in folders], member / "series.parquet")
    series.merge([path for folder in folders if (path := folder / results.SCRAPED).exists()], member / results.SCRAPED)
    _events([folder / "events.jsonl" for folder in folders], member / "events.jsonl")
    tally = Tally.read(folders[0] / TALLY)
    for folder in folders[1:]:
        tally.add(Tally.read(folder / TALLY))
    np.savez_compressed(member / "histograms.npz", allow_pickle=False, **tally.histograms())
    infos = [results.read_json(folder / "member.json", "notes") for folder in folders]
    info = {
        "metrics": tally.metrics(scenario, {}),
        "notes": [note_on(scenario), *dict.fromkeys(note for one in infos for note in one["notes"])],
        **{name: any(one[name] for one in infos) for name in ("uncalibrated", "kv_override")},
    }
    results.write_json(member / "member.json", info)
    shutil.rmtree(member / "cells")


def note_on(scenario: Scenario) -> str:
    """Return what a reader of results must know of the fleet's cells."""
    n = scenario.fleet.cells
    sizes = " and ".join(f"{pool.replicas // n} of {name}" for name, pool in scenario.fleet.pools.items())
    return f"the fleet is {n} cells, each with its own router, replicas ({sizes}) and 1/{n} of the users"


def _rows(paths: Sequence[Path], out: Path) -> None:
    """String the row groups of *paths* together, those of one cell after those of another."""
    import pyarrow.parquet as pq

    with ExitStack() as opened:
        writer: Any = None
        for path in filter(Path.exists, paths):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    if writer is None:
                        writer = opened.enter_context(results.writer(out, table.schema))
                    writer.write_table(table)


def _scrapes(paths: Sequence[Path], out: Path) -> None:
    """Write the scraped samples of *paths* by time, then replica.

    The k-th row groups of all are of the same scrapes, but for the last: a cell is scraped until its last request.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as opened:
        files = [opened.enter_context(pq.ParquetFile(path)) for path in paths]
        writer = opened.enter_context(results.writer(out, files[0].schema_arrow))
        for k in range(max(file.num_row_groups for file in files)):
            groups = [file.read_row_group(k) for file in files if k < file.num_row_groups]
            writer.write_table(pa.concat_tables(groups).sort_by([("t_s", "ascending"), ("replica", "ascending")]))


def _events(paths: Sequence[Path], out: Path) -> None:
    """Write the events of *paths* in the order of time: once what happened in all cells, the rest with its cell."""
    found: list[tuple[float, int, dict[str, Any]]] = []
    by_cell = [Counter(path.read_text(encoding="utf-8").splitlines()) for path in paths]
    everywhere = by_cell[0]
    for one in by_cell[1:]:
        everywhere = everywhere & one
    for line, times in everywhere.items():
        found += [(json.loads(line)["t_s"], -1, json.loads(line))] * times
    for number, lines in enumerate(by_cell):
        for line, times in (lines - everywhere).items():
            event = json.loads(line)
            found += [(event["t_s"], number, {**event, "cell": number})] * times
    found.sort(key=lambda one: one[:2])
    out.write_text("".join(json.dumps(event) + "\n" for _, _, event in found), encoding="utf-8")
