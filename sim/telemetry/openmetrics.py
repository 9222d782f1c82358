"""Series as OpenMetrics text, from which `promtool tsdb create-blocks-from openmetrics` makes a past for Prometheus."""

from collections.abc import Callable, Iterator
from typing import TextIO

import numpy as np

from sim.families import CHECK_SCORES, CONTAINED, FAMILIES
from sim.series import NAME, SeriesSet, is_stale

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def write_openmetrics(read: Callable[[str], SeriesSet], out: TextIO) -> int:
    """Write the series that *read* returns for each name of a metric; return how many samples that were.

    Times are seconds from the start of the run, as if that had been the beginning of 1970. Stale markers are left
    out, for the text cannot say them.
    """
    written = 0
    for family in (*FAMILIES, CHECK_SCORES, *CONTAINED):
        head = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
        for name in family.names:
            for labels, t_ms, values in read(name):
                out.write(head)
                head = ""
                kept = ~is_stale(values)
                written += int(kept.sum())
                out.writelines(_lines(labels, t_ms[kept], values[kept]))
    out.write("# EOF\n")
    return written


def _lines(labels: dict[str, str], t_ms: np.ndarray, values: np.ndarray) -> Iterator[str]:
    inside = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items() if name != NAME)
    series = f"{labels[NAME]}{{{inside}}}"
    for t, value in zip(t_ms.tolist(), values.tolist()):
        yield f"{series} {value!r} {t // 1000}.{t % 1000:03d}\n"
