"""What a measured run and its prediction come to: tables for a page, a summary for machines, one figure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.real_vllm import model
from benchmarks.real_vllm.log import Measured
from benchmarks.real_vllm.predict import RATE, Calibration, Held
from benchmarks.replay import METRICS, Floats
from benchmarks.tables import Report, Table
from sim.report import style
from sim.results import Member, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = tuple(f"{name}_{stat}" for name in ("ttft", "e2e") for stat in ("p50", "p95", "p99"))
"""Of `METRICS`, in a run's own words."""
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that was found: *predicted* are runs of the scenario with the calibration, by (rate, seed).

    *compared* is what ``blowout compare --json`` says of each measured run and the simulated one of its seed.
    """

    measured: list[Measured]
    idle: tuple[float, ...]
    calibration: Calibration
    held: list[Held]
    predicted: dict[tuple[float, int], Member]
    compared: list[dict[str, Any]]
    versions: dict[str, str]

    @property
    def rates(self) -> list[float]:
        """The loads, lowest first."""
        return sorted({one.rate_per_s for one in self.measured})

    def real(self, rate: float, name: str) -> Floats:
        """Return a metric at one load as measured, by seed."""
        return _values([one.metrics for one in self.measured if one.rate_per_s == rate], name)

    def ours(self, rate: float, name: str, seeds: Sequence[int] = ()) -> Floats:
        """Return a metric at one load as predicted, by seed: of all, or of *seeds*."""
        chosen = [one for (at, seed), one in self.predicted.items() if at == rate and (not seeds or seed in seeds)]
        return _values([one.info["metrics"] for one in chosen], name)

    @property
    def seeds(self) -> list[int]:
        """Those that were measured."""
        return sorted({one.seed for one in self.measured})


def _values(metrics: Sequence[dict[str, Any]], name: str) -> Floats:
    return np.array([float(one.get(name) or 0.0) for one in metrics])


def members(run: Run) -> dict[tuple[float, int], Member]:
    """Return the members of *run* by rate and seed."""
    return {(float(member.point[RATE]), member.seed): member for member in run.members}


# --- tables -----------------------------------------------------------------------------------------------------------


def report(found: Found) -> Report:
    """Return the tables: what was measured, what was predicted, and what is left when rules and host are known."""
    return Report([_measured(found), _predicted(found), _rules(found), _replayed(found)])


def _measured(found: Found) -> Table:
    rows = []
    for one in found.measured:
        metrics = one.metrics
        rows.append(
            (f"{one.rate_per_s:g}", str(one.seed), f"{metrics['requests']:.0f}", *_three(metrics, "ttft"),
             *_three(metrics, "e2e"), f"{100 * metrics['kv_mean']:.0f}% / {100 * metrics['kv_max']:.0f}%",
             f"{metrics['preemptions']:.0f}", f"{metrics['waiting_max']:.0f}", f"{one.foreign_cores:.2f}",
             f"{1e3 * one.send_lag_s['p50']:.1f} / {1e3 * one.send_lag_s['p99']:.1f}")
        )  # fmt: skip
    header = ("rate/s", "seed", "requests", *METRICS, "KV mean / max", "preempted", "waiting max", "foreign cores",
              "sent late, ms P50 / P99")  # fmt: skip
    note = "Seconds, from when a request was due, after the warm-up; KV, preemptions and waiting from vLLM's /metrics."
    return Table("Measured", note, header, rows)


def _three(metrics: dict[str, Any], name: str) -> list[str]:
    return [f"{metrics[f'{name}_{stat}']:.3f}" for stat in ("p50", "p95", "p99")]


def _predicted(found: Found) -> Table:
    rows = []
    for rate in found.rates:
        cells = []
        for name in NAMES:
            real, ours = found.real(rate, name), found.ours(rate, name, found.seeds)
            low, high = np.percentile(found.ours(rate, name), (5, 95))
            cells.append(f"{real.mean():.3f} -> {ours.mean():.3f} ({_gap(real, ours)}; {low:.3f}..{high:.3f})")
        real, ours = found.real(rate, "preemptions"), found.ours(rate, "preemptions", found.seeds)
        low, high = np.percentile(found.ours(rate, "preemptions"), (5, 95))
        cells.append(f"{real.mean():.0f} -> {ours.mean():.0f} ({low:.0f}..{high:.0f})")
        known = "calibrated on" if rate in found.idle else "predicted"
        rows.append((f"{rate:g}", known, *cells))
    note = (
        "Seconds, measured -> simulated, means over the seeds that were measured: the same requests at the same times. "
        "In brackets the error, and 5% to 95% over all simulated seeds, which is how much such a run says at all."
    )
    return Table("Predicted from the idle levels", note, ("rate/s", "", *METRICS, "preemptions"), rows)


def _gap(real: Floats, ours: Floats) -> str:
    return f"{100 * (ours.mean() / real.mean() - 1):+.0f}%"


def _rules(found: Found) -> Table:
    rows = [
        (f"{one.rate_per_s:g}", str(one.seed), f"{held.steps:,}", f"{held.same:,}",
         f"{one.level.preemptions} -> {held.ruled_preemptions}")
        for one, held in zip(found.measured, found.held)
    ]  # fmt: skip
    note = (
        "vLLM's own log beside the engine, step by step, as explained in docs/explanation/fidelity.md: sequences in "
        "the batch and tokens computed. The warm-up counts too."
    )
    return Table("Rules", note, ("rate/s", "seed", "steps", "identical", "preemptions"), rows)


def _replayed(found: Found) -> Table:
    rows = []
    for one, held in zip(found.measured, found.held):
        errors = [f"{100 * error:+.1f}%" for error in held.replayed.errors(one.level)]
        low, usual, high = held.replayed.preemptions
        counts = f"{one.level.preemptions} -> {usual:.0f} ({low:.0f}..{high:.0f})"
        rows.append((f"{one.rate_per_s:g}", str(one.seed), *errors, counts, f"{100 * held.host:+.1f}%"))
    note = (
        "The same step times, with the host as slow at each moment as the level's own log says it was: what is then "
        "still missed is the engine's fault. Errors; last, how much slower the host was than on the idle levels."
    )
    return Table("Replayed with the host as it was", note, ("rate/s", "seed", *METRICS, "preemptions", "host"), rows)


# --- files ------------------------------------------------------------------------------------------------------------


def summary(found: Found) -> dict[str, Any]:
    """Return what a machine may want to know of it."""
    levels = []
    for one, held in zip(found.measured, found.held):
        wanted = (*NAMES, "requests", "preemptions", "kv_mean", "kv_max", "waiting_max")
        ours = found.predicted[one.rate_per_s, one.seed].info["metrics"]
        levels.append(
            {
                "rate_per_s": one.rate_per_s, "seed": one.seed, "foreign_cores": one.foreign_cores,
                "own_cores": one.own_cores, "host_slower": held.host, "steps": held.steps, "steps_identical": held.same,
                "measured": {name: one.metrics.get(name) for name in wanted},
                "simulated": {name: ours.get(name) for name in wanted},
            }
        )  # fmt: skip
    calibration = {
        "idle_rates_per_s": found.idle, "steps": found.calibration.steps, "noise_sigma": found.calibration.fit.fast,
        "noise_slow_sigma": found.calibration.fit.slow, "ingress_s": found.calibration.ingress_s,
        "egress_s": found.calibration.egress_s, "most_decoding": found.calibration.most_decoding,
    }  # fmt: skip
    return {
        "scenario": "vllm-on-a-cpu", "versions": found.versions, "calibration": calibration, "levels": levels,
        "compare": found.compared,
    }  # fmt: skip


def write(found: Found, folder: Path) -> None:
    """Write figure and summary into *folder*, and the tables into its README.md, between their marks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(_rounded(summary(found)), indent=1) + "\n", encoding="utf-8")
    style.save(plate(found), folder / "ttft-against-load.png")
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    tables = report(found).markdown().partition("### Bounds")[0]
    page.write_text(f"{before}{BEGIN}\n{tables.rstrip()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Return *value* with every number to five digits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


# --- figure -----------------------------------------------------------------------------------------------------------


def plate(found: Found) -> style.Plate:
    """Return the figure: TTFT, KV cache and preemptions against load, measured and predicted."""
    low, high = max(found.idle), found.rates[-1]
    growth = [float(found.real(high, name).mean() / found.real(low, name).mean()) for name in ("ttft_p99", "ttft_p50")]
    title = (
        f"From {low:g} to {high:g} requests/s a real vLLM's P99 time to first token grows {growth[0]:.1f}-fold, "
        f"its P50 {growth[1]:.1f}-fold"
    )
    caption = (
        f"vLLM 0.32.0 on two processor cores, {model.ABOUT}, 63 KV blocks of 32 tokens. Dots: measured, one "
        "for each seed. Lines: simulated with step times of the shaded loads alone, the median of "
        f"{len(found.predicted) // len(found.rates)} seeds with 5% to 95%."
    )
    return style.Plate("ttft-against-load", "A real vLLM", title, caption, lambda: _draw(found, title, caption))


def _draw(found: Found, title: str, caption: str) -> "Figure":
    from matplotlib.lines import Line2D

    panels = (("ttft_p50", "ttft_p99"), ("kv_mean", "kv_max"), ("preemptions_per_request",))
    figure, axes = style.sheet(
        title,
        "",
        caption,
        heights=(2.3, 1.0, 0.9),
        widths=(1,),
        head=style.LEGEND_ROW + 0.15,
        gap=(0.2, 0.2),
        side=0.85,
    )
    colours = {"ttft_p50": style.PERCENTILES["P50"], "ttft_p99": style.PERCENTILES["P99"], "kv_mean": "#7db391",
               "kv_max": style.KV, "preemptions_per_request": style.WAITING}  # fmt: skip
    for ax, names in zip(axes[:, 0], panels):
        ax.axvspan(min(found.rates) - 0.2, max(found.idle) + 0.2, color=style.SHADE, zorder=0)
        for name in names:
            _curve(ax, found, name, colours[name])
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylim(*_decades(axes[0, 0]))
    style.log_seconds(axes[0, 0].yaxis)
    style.percent_axis(axes[1, 0].yaxis)
    axes[1, 0].set_ylim(0, 1.05)
    style.from_zero(axes[2])
    for ax, said in zip(axes[:, 0], ("time to first token", "KV cache", "preemptions")):
        ax.set_ylabel(said)
    axes[-1, 0].set_xlabel("requests/s")
    axes[-1, 0].set_xticks(found.rates, [f"{rate:g}" for rate in found.rates])
    axes[-1, 0].set_xlim(min(found.rates) - 0.2, max(found.rates) + 0.2)
    labels = {"ttft_p50": "P50", "ttft_p99": "P99", "kv_mean": "KV cache in use, mean", "kv_max": "most",
              "preemptions_per_request": "preemptions a request"}  # fmt: skip
    handles = [Line2D([], [], color=colours[name], marker="o", label=label) for name, label in labels.items()]
    style.legend(figure, handles)
    return figure


def _decades(ax: Any) -> tuple[float, float]:
    """Return limits of a logarithmic axis a little beyond what is drawn."""
    return 0.85 * float(ax.dataLim.y0), 1.15 * float(ax.dataLim.y1)


def _curve(ax: Any, found: Found, name: str, colour: str) -> None:
    def of(values: str, rate: float, seeds: bool) -> Floats:
        get = found.real if seeds else found.ours
        if values != "preemptions_per_request":
            return get(rate, values)
        return get(rate, "preemptions") / np.maximum(get(rate, "requests"), 1.0)

    low, middle, high = np.array([np.percentile(of(name, rate, False), (5, 50, 95)) for rate in found.rates]).T
    ax.fill_between(found.rates, low, high, color=colour, alpha=0.18, lw=0)
    ax.plot(found.rates, middle, color=colour)
    for rate in found.rates:
        real = of(name, rate, True)
        ax.plot([rate] * len(real), real, "o", color=colour, ms=5, mec="white", mew=0.7, clip_on=False, zorder=3)
