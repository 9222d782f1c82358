"""The ten surprises as figures, each with one message."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report import style
from sim.seed.verdicts import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, YELLOW, GREEN = style.SERIES[:4]
Data = dict[str, Any]


def _plate(
    name: str, title: str, caption: str, draw: Callable[["Axes"], None], tall: float = 2.9, side: float = 1.3
) -> style.Plate:
    """One panel under a title that is the message."""

    def drawn() -> "Figure":
        figure, axes = style.sheet(title, "", caption, heights=(tall,), side=side, right=0.4)
        draw(axes[0, 0])
        return figure

    return style.Plate(name, name, title, caption, drawn)


def plates(found: dict[int, Found]) -> list[style.Plate]:
    """Return the figures, in the order of the page, of what was measured."""
    makers = {
        35: _tail, 31: _ratios, 33: _blind, 29: _pages, 47: _gate, 53: _group, 54: _judge, 13: _chains, 7: _noon,
        28: _lag,
    }  # fmt: skip
    return [make(found[number].data) for number, make in makers.items() if number in found]


def _bars(
    ax: "Axes", names: list[str], values: list[float], colours: list[str], texts: list[str], log: bool = True
) -> None:
    at = np.arange(len(names))[::-1]
    ax.barh(at, values, color=colours, height=0.62)
    ax.set_yticks(at, names)
    if log:
        ax.set_xscale("log")
    for y, x, text in zip(at, values, texts, strict=True):
        style.mark(ax, x, float(y), text, style.INK)
    ax.grid(axis="y", visible=False)


def _tail(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        for k, stat in enumerate(("p50", "p95", "p99")):
            before, after = data[f"{stat}_before"][0], data[f"{stat}_after"][0]
            colour = style.PERCENTILES[stat.upper()]
            ax.plot([0, 1], [before, after], "o-", color=colour)
            label = f"{stat.upper()}  x {data[stat][0]:,.{0 if k == 2 else 2}f}"
            style.mark(ax, 1, after, label, colour, "above" if stat == "p95" else "right")
        ax.set_yscale("log")
        style.log_seconds(ax.yaxis)
        ax.set_xticks([0, 1], ["all fifty replicas well", "one of them three times slower"])
        ax.set_xlim(-0.3, 1.5)
        ax.set_ylabel("time to first token")

    title = f"One bad replica of fifty: P99 is {data['p99'][0]:,.0f} times as long, and the median shows nothing"
    caption = (
        "Scenario one-bad-replica, a router that goes in turn; medians over seeds, of times and of ratios seed by "
        "seed. uncalibrated"
    )
    return _plate("one-bad-replica", title, caption, draw)


def _ratios(data: Data) -> style.Plate:
    cells = data["cells"]

    def draw(ax: "Axes") -> None:
        at = np.arange(len(cells))[::-1]
        for what, colour, name in (("ratio", RED, "whole answers"), ("per_token", BLUE, "time per token")):
            rows = [cell[what] for cell in cells.values()]
            ax.errorbar([r[0] for r in rows], at, xerr=[[r[0] - r[1] for r in rows], [r[2] - r[0] for r in rows]],
                        fmt="o", color=colour, ms=5)  # fmt: skip
            style.mark(ax, rows[0][0], at[0], name, colour, "above")
        ax.axvline(3, color=style.INK, lw=1, ls="--")
        ax.set_yticks(at, list(cells))
        ax.set_ylim(-0.6, len(cells) - 0.1)
        ax.set_xlim(0, None)
        ax.set_xlabel("P99 / P50 of a service on which hardly anybody waits; the common rule warns above 3")

    title = "The rule on P99/P50 of whole answers fires on a service that does nothing"
    caption = "Recorded lengths (Azure conversations, Mooncake), Llama-3.1-8B, a request every 20 s. uncalibrated"
    return _plate("idle-ratio", title, caption, draw, 3.2)


def _blind(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        ax.plot(data["accuracy"], data["multiple"], color=BLUE)
        for accuracy, side in ((0.8, "above"), (0.99, "left")):
            y = float(np.interp(accuracy, data["accuracy"], data["multiple"]))
            ax.plot([accuracy], [y], "o", color=RED)
            style.mark(ax, accuracy, y, f"{accuracy:.0%} right: {y:.1f} times", RED, side)
        style.percent_axis(ax.xaxis)
        ax.set_ylim(0, None)
        ax.set_xlabel("share of right answers before")
        ax.set_ylabel("times the errors when it fires")

    title = "'Quality fell by 10%' sees nothing on a good model: at 99% right it takes 10.9 times the errors"
    return _plate("blind-rule", title, "1 - 0.9 x accuracy, over 1 - accuracy: a closed form.", draw)


def _pages(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        for (rate, pages), colour in zip(data["table"].items(), (BLUE, RED), strict=True):
            ax.plot(data["base"], pages, "o-", color=colour)
            k = 0 if rate < 100 else 1  # where the two are apart
            style.mark(ax, data["base"][k], pages[k], f"{rate:,.0f} requests/s", colour, "above")
        ax.set_yscale("symlog", linthresh=1)
        ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.1f}%")
        ax.set_xticks(data["base"])
        ax.set_xlim(0.0055, 0.0125)
        ax.set_xlabel("share of requests that fail on a normal day; a budget of 2% allows all of these")
        ax.set_ylabel("pages in 30 days")

    title = "A page above 1% errors pages for nothing, all month long, if 1% is normal"
    caption = (
        "More than 1% over 5 minutes, for 5 minutes; constant error rate and traffic, chance alone; mean of ten months."
    )
    return _plate("false-pages", title, caption, draw)


def _gate(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        for name, label, colour, side in (("lowest", "hold back the least sure 5%", BLUE, "below"),
                                          ("fixed", "hold back what is below 80%", RED, "right, up")):  # fmt: skip
            rows = np.asarray(data[name])
            ax.errorbar(
                data["shifts"],
                rows[:, 0],
                yerr=[rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]],
                fmt="o-",
                color=colour,
            )
            style.mark(ax, data["shifts"][1], rows[1, 0], label, colour, side)
        style.percent_axis(ax.yaxis)
        ax.set_ylim(0, 1.05)
        ax.set_xlabel("overconfidence, added to the logit of every answer")
        ax.set_ylabel("of errors, caught")

    title = "Overconfidence ruins a gate with a fixed threshold, and does nothing to one that holds back a share"
    caption = "A model 99% right (AUROC 0.99); ten samples of 50,000 answers, bars 99.9%."
    return _plate("gate", title, caption, draw)


def _group(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        for (name, hours), colour in zip(data["times"].items(), (style.QUIET, YELLOW, GREEN, BLUE), strict=True):
            seen = np.isfinite(hours)
            x = np.concatenate([[0.9], hours[seen], [data["hours"]]])
            y = np.concatenate([[0], np.arange(1, seen.sum() + 1), [seen.sum()]]) / hours.size
            ax.step(x, y, where="post", color=colour, label=name)
        ax.set_xscale("log")
        ax.set_xticks([1, 2, 4, 8, 24, 48], ["1", "2", "4", "8", "24", "48"])
        ax.minorticks_off()
        style.percent_axis(ax.yaxis)
        ax.legend(loc="center right", bbox_to_anchor=(1, 0.38))
        ax.set_xlabel("hours since a group of 0.5% turned from 5% to 40% wrong")
        ax.set_ylabel("noticed")

    title = "A test of the average never finds a group that is broken; a test of each group does, from the same answers"
    caption = (
        "1,000 graded answers an hour; every plan raises a false alarm in at most 0.35% of 48-hour periods; 4,000 "
        "runs each."
    )
    return _plate("small-group", title, caption, draw)


def _judge(data: Data) -> style.Plate:
    variance = data["variance"]
    human = variance["people alone"]
    worth = [2200 * human / v for v in variance.values()]

    def draw(ax: "Axes") -> None:
        _bars(ax, list(variance), worth, [style.QUIET, BLUE, RED], [f"{w:,.0f}" for w in worth], log=False)
        ax.set_xlim(0, 1.15 * max(worth))
        ax.set_xlabel("worth so many human grades; all three use 2,200 and a million verdicts of the judge")

    title = "Let a model judge say where people should look, and never let it count"
    caption = "1% wrong; the judge flags 90% of the wrong and 5% of the right answers. Variances in closed form."
    return _plate("judge", title, caption, draw, 1.7, side=2.4)


def _chains(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        for name, label, colour in (("verified", "a verifier that sees 80%", BLUE),
                                    ("shared", "some tasks are hard, most easy", YELLOW),
                                    ("alone", "steps fail independently", RED)):  # fmt: skip
            ax.plot(data["steps"], data[name], color=colour, label=label)
        ax.legend(loc="lower left", frameon=False)
        style.percent_axis(ax.yaxis)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("steps, each 95% right")
        ax.set_ylabel("tasks that succeed")

    title = "Five steps of 95% make 77% if they fail alone; they rarely do, and a verifier makes it 95%"
    caption = (
        "Closed forms: 0.95^n; Beta(1.9, 0.1) over tasks; flags 80% of the wrong and 5% of the right steps, tried "
        "again."
    )
    return _plate("chains", title, caption, draw)


def _noon(data: Data) -> style.Plate:
    def draw(ax: "Axes") -> None:
        for name, label, colour, at in (
            ("flat", "the same all night", BLUE, 10.0),
            ("day", "quiet nights, peak at 15:00", RED, data["late"]),
        ):
            ax.plot(data["hours"], np.asarray(data[name]) / 1e6, color=colour)
            ax.plot([at], [1], "o", color=colour)
            style.mark(ax, at, 1, label, colour, "left" if name == "flat" else "right, down")
        ax.axvline(12, color=style.INK, lw=1, ls="--")
        ax.set_xticks([0, 6, 10, 12, 18, 24], ["0:00", "6:00", "10:00", "noon", "18:00", "24:00"])
        ax.set_xlim(0, 24)
        ax.set_ylim(0, None)
        ax.set_ylabel("wrong answers, millions")

    title = "A million wrong answers before noon, if users do not sleep"
    caption = "Ten million requests an hour on average, 1% wrong. The night is a sinusoid that falls to nothing."
    return _plate("before-noon", title, caption, draw)


def _lag(data: Data) -> style.Plate:
    missed = data["missed"]

    def draw(ax: "Axes") -> None:
        _bars(
            ax,
            list(missed),
            list(missed.values()),
            [BLUE, BLUE, YELLOW, RED, RED],
            [f"{v:,.0f}" for v in missed.values()],
        )
        ax.set_xlim(100, 2e7)
        ax.set_xlabel("more wrong answers until it is noticed")

    title = "What a late signal costs: from 700 wrong answers to 1.4 million, for the same failure"
    return _plate("lag", title, "Ten million requests a day, two points more of them wrong: delay x rate.", draw, 2.2)
