"""What a person sees of a run: true sentences, figures that can be drawn from anything, one page that stands alone."""

import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sim import report, scenario, summary
from sim.records import PARTS
from sim.report import figures, parts, style, sweep, tables, timeline, words, wrong
from sim.report.view import Estimate, Point, merged_windows, quantiles, view, worst
from sim.results import FORMAT, SERIES, Recorder, Run, write_json

BINS = 1500
EDGES_S = summary.edges_s(BINS)
RATE = "workload.rate_per_s"
SCENARIO = """
name: small
title: A <small> service
story: Nothing much happens & that is the point.
duration: 30m
warmup: 2m
{vary}
fleet: {{kv_blocks: {blocks}, step_time: {{linear: {{base: 10ms, per_sequence: 1ms}}}}, replicas: 2}}
workload:
  rate_per_s: 6
  cohorts: {{main: {{prompt_tokens: 100, output_tokens: 100}}}}
claims: {claims}
"""


def histogram(rng, median_s, tail_s, n):
    """Latencies of n requests, of which 2% have a long tail, by bin."""
    latency_s = median_s * np.exp(0.3 * rng.standard_normal(n)) + (rng.random(n) < 0.02) * tail_s
    return np.histogram(latency_s, EDGES_S)[0]


def arrays(seed, tail_s, *, windows=60, per_window=400, wrong_per_minute=0.0, requests=True):
    """What histograms.npz holds of a synthetic run of 30 minutes."""
    rng = np.random.default_rng(seed)
    n = per_window if requests else 0
    by_window = {
        "ttft": np.array([histogram(rng, 0.03, tail_s, n) for _ in range(windows)]),
        "e2e": np.array([histogram(rng, 6.0, tail_s, n) for _ in range(windows)]),
    }
    found = {f"{name}_by_window": rows for name, rows in by_window.items()}
    found |= {name: rows.sum(axis=0)[None] for name, rows in by_window.items()}
    found |= dict.fromkeys(("tpot", "queue", "itl"), found["ttft"])
    minutes = rng.poisson(wrong_per_minute, 30)
    found |= {"minute_requests": np.full(30, 2 * n), "minute_ok": np.full(30, 2 * n), "minute_wrong": minutes}
    found |= {"minute_errors": np.zeros(30, int), "edges_s": EDGES_S, "window_s": np.array(1800.0 / windows)}
    usual = np.array([0, 0, 0, 0.0, 0.005, 0.02, 4.0, 1.5, 0, 0]) * requests
    slow = usual + np.array([0, 0, 0, tail_s, 0.005, 0.01, 0.1, 0.4, 0.2, 0]) * requests
    whole = {"parts_all": usual, "parts_median": usual, "parts_tail": slow}
    return found | whole | {f"{name}_first": before_decoding(seconds) for name, seconds in whole.items()}


def before_decoding(seconds):
    """What of the ten parts falls before the first token, where nobody is preempted or stalled before it."""
    return np.where(np.arange(10) < 6, seconds, 0.0)


def metrics_of(found):
    counted = {name: found[name] for name in summary.LATENCIES}
    values = summary.latencies(counted, ["main"])
    wrong_answers = float(found["minute_wrong"].sum())
    values |= {"kv_mean": 0.7, "kv_max": 0.998, "running_mean": 30.0, "waiting_mean": 1.2, "waiting_max": 14.0}
    values |= {"requests": float(found["ttft"].sum()), "preemptions": 12.0, "errors": 0.0, "wrong": wrong_answers}
    values |= {"wrong_per_min_mean": wrong_answers / 30, "wrong_per_min_peak": wrong_answers / 30, "timed_out": 0.0}
    return values | {"goodput_per_s": 6.0, "throughput_tokens_per_s": 600.0}


def series(seed):
    rng = np.random.default_rng(seed)
    t_s = np.repeat(np.arange(0.0, 1800.1, 15.0), 2)
    values = rng.random((len(SERIES), len(t_s))) * np.array([60, 9, 1, 50, 9e5, 9e5])[:, None]
    replica = np.tile(np.array([0, 1], np.int32), len(t_s) // 2)
    return {"t_s": t_s, "pool": np.full(len(t_s), "main"), "replica": replica, **dict(zip(SERIES, values))}


def make_run(folder: Path, tails=(0.05,), seeds=1, *, vary=None, override=False, verdicts=None, notes=(), **how) -> Run:
    """Write the folder of a run whose points have tails of *tails* seconds, without playing anything."""
    folder.mkdir(parents=True, exist_ok=True)
    values = [] if vary is None and len(tails) == 1 else (vary or {RATE: [6.0 + 0.3 * i for i in range(len(tails))]})
    text = SCENARIO.format(
        vary=f"vary: {json.dumps(values)}" if values else "",
        blocks=4000,
        claims=json.dumps({v["name"]: v["text"] for v in verdicts or []}),
    )
    (folder / "source.yaml").write_text(text)
    loaded = scenario.load(folder / "source.yaml")
    (folder / "scenario.yaml").write_text(scenario.dump(loaded))
    swept = [point for point, _ in scenario.points(loaded)]
    members, entries = [], []
    for i, (point, tail_s) in enumerate(zip(swept, tails, strict=True)):
        found = []
        for seed in range(1, seeds + 1):
            path = f"point-{i}/seed-{seed}"
            histograms = arrays(100 * i + seed, tail_s, **how)
            recorder = Recorder(folder / path)
            recorder.series(series(seed))
            recorder.close(histograms, {"metrics": {}})
            members.append({"point": point, "seed": seed, "path": path})
            found.append(metrics_of(histograms))
        over_seeds = {name: summary.interval([m[name] for m in found]) for name in found[0]}
        entries.append({"point": point, "seeds": list(range(1, seeds + 1)), "metrics": over_seeds})
    info = {"format": FORMAT, "kind": "simulated", "members": members, "seeds": [1], "versions": {"blowout": "0.1.0"}}
    command = ["blowout", "run", "my scenario.yaml"]
    write_json(folder / "run.json", info | {"state": "complete", "command": command, "wall_s": 987.654})
    flags = {"uncalibrated": True, "kv_override": override, "assumptions": list(notes)}
    write_json(folder / "summary.json", {"scenario": "small", **flags, "points": entries})
    if verdicts:
        write_json(folder / "verdict.json", verdicts)
    return Run.open(folder)


def verdict(name="tail", text="ttft_p99[6.3] / ttft_p99[6.0] >= 10", passed=True, **other):
    usual = {"estimate": 27.6, "low": 18.2, "high": 41.3, "bound": 10.0, "op": ">=", "seeds": 10}
    return {"name": name, "text": text, "passed": passed, **usual, **other}


def shown(run: Run) -> str:
    text = io.StringIO()
    tables.show(run, text)
    return text.getvalue()


def words_in(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


MEDIAN = {"estimate": 0.031, "low": 0.030, "high": 0.032, "bound": 2.0}


@pytest.fixture(scope="module")
def cliff(tmp_path_factory) -> Run:
    verdicts = [
        verdict(),
        verdict("median", "ttft_p50[6.3] <= 2s", False, **MEDIAN),
    ]
    run = make_run(tmp_path_factory.mktemp("cliff"), (0.05, 2.0), 10, override=True, verdicts=verdicts)
    report.write_figures(run)
    report.write_html(run)
    return run


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0235, "23.5 ms"),
        (1.664, "1.66 s"),
        (0.99996, "1.00 s"),
        (9.996, "10.0 s"),
        (59.96, "60.0 s"),
        (720, "12.0 min"),
    ]
    + [(0, "0 ms"), (4e-5, "40.0 µs"), (86400, "24.0 h"), (math.nan, "–")],
)
def test_times_are_said_in_the_unit_that_suits_them(value: float, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.97, "97%"),
        (0.0012, "0.12%"),
        (0.99996, "99.9%"),
        (1.0, "100%"),
        (0.0, "0%"),
        (0.01, "1%"),
        (0.995, "99.5%"),
        (-0.9962, "-99.6%"),
    ],
)
def test_nearly_all_is_not_said_to_be_all(value: float, text: str) -> None:
    assert words.percent(value) == text


def test_an_interval_is_said_in_the_unit_of_its_estimate() -> None:
    assert words.interval("ttft_p99", 1.66, 0.984, 2.01) == "1.66 s [0.984, 2.01]"
    assert words.interval("kv_mean", 0.6, 0.59, 0.61) == "60% [59, 61]"
    assert words.interval("cohort.chat.ttft_p50", 0.023, 0.022, 0.024) == "23.0 ms [22.0, 24.0]"
    assert words.interval("requests", 12345, 12000, 13000) == "12,345 [12,000, 13,000]"
    assert words.interval("ttft_p99", 1.66, math.nan, math.nan) == "1.66 s"
    assert words.interval("ttft_p99", 1.66, 0.984, 2.01, is_range=True) == "1.66 s (0.984..2.01)"


def test_two_seeds_have_a_range_and_no_interval(tmp_path: Path) -> None:
    assert summary.interval([1.0, 3.0]) == {"estimate": 2.0, "low": 1.0, "high": 3.0, "values": [1.0, 3.0]}
    assert summary.interval([1.0, math.nan, 3.0])["high"] == 3.0
    three = summary.interval([1.0, 2.0, 3.0])
    times = math.exp(4.303 / 3**0.5 / 2.0)  # Student's half-width over the mean, on the scale of logarithms
    assert (three["low"], three["high"]) == pytest.approx((2.0 / times, 2.0 * times), rel=1e-3)
    run = make_run(tmp_path, (0.05, 2.0), 2, verdicts=[verdict(seeds=2)])
    text = shown(run)
    assert "2 seeds of 30 min; mean of both (range: lower..higher; an interval takes 3 seeds)" in text
    assert re.search(r"TTFT P99 +[\d.]+ m?s \([\d.]+\.\.[\d.]+\)", text)
    assert "[" not in text.partition("Claims")[0]
    assert "27.6 (18.2..41.3)" in text
    page = report.write_html(run).read_text()
    assert re.search(r"<i>\([\d.]+\.\.[\d.]+\)</i>", page)
    assert "Provisional: the verdict rests on 2 seeds" in page


@pytest.mark.parametrize(("seeds", "said"), [(1, "is on 1 seed;"), (5, "rests on 5 seeds"), (6, "")])
def test_verdicts_on_few_seeds_say_so(tmp_path: Path, seeds: int, said: str) -> None:
    text = shown(make_run(tmp_path, (0.05, 2.0), verdicts=[verdict(seeds=seeds)]))
    assert ("Provisional" in text) == bool(said)
    assert said in text


def test_points_are_named_after_what_varies() -> None:
    assert words.point_name({RATE: 7.2}) == "7.2 requests/s"
    assert words.point_name({"fleet.router": "random", "fleet.pools.a.replicas": 4}) == "router random, replicas 4"
    assert words.between({RATE: 6.0}, {RATE: 7.2}) == "between 6 and 7.2 requests/s"
    assert words.between({"fleet.replicas": 2}, {"fleet.replicas": 4}) == "between replicas 2 and 4"


def test_the_reason_for_the_tail_names_what_grew_most_first_and_with_both_times() -> None:
    median = [0, 0, 0, 0, 0.005, 0.02, 4.0, 1.5, 0, 0]
    tail = [0, 0, 0.5, 3.0, 0.005, 0.02, 2.0, 2.5, 0, 0]
    text = words.slowest("7.2 requests/s", (tail, median), (before_decoding(tail), before_decoding(median)))
    assert text == (
        "At 7.2 requests/s, the slowest 1% by time to first token spent 3.52 s before it, requests around the median "
        "25.0 ms. What took longer, most first: waiting for KV cache blocks (3.00 s, against none) and waiting for a "
        "seat in the batch (500 ms, against none). To the last token they took 8.03 s, against 5.53 s; what took "
        "longer after the first: decoding slowed by the batch (2.50 s, against 1.50 s). "
        "They had it easier in one thing: 2.00 s less of decoding as if alone."
    )


def test_of_a_measured_run_there_is_less_after_the_first_token() -> None:
    names = {name: words.MEASURED_NAMES.get(name, said) for name, said in words.PART_NAMES.items()}
    median, tail = [0, 0, 0, 0, 0, 0.02, 0.2, 0, 0, 0], [0, 0, 0, 0, 0, 0.2, 0.1456, 0, 0, 0]
    text = words.slowest("", (tail, median), (before_decoding(tail), before_decoding(median)), names)
    assert text.endswith("They had it easier in one thing: 54.4 ms less after the first token.")


@pytest.mark.parametrize(("length_s", "said"), [(3.89679, "3.90 s"), (90.5, "90.5 s"), (1800.0, "30 min")])
def test_a_length_that_nobody_chose_has_three_digits(length_s: float, said: str) -> None:
    assert words.lasting(length_s) == said


def test_no_reason_is_invented() -> None:
    nothing, unknown, alike = [0.0] * 10, [math.nan] * 10, [0.1] * 10
    assert words.slowest("", (nothing, nothing), (nothing, nothing)) == ""
    assert words.slowest("", (unknown, nothing), (unknown, nothing)) == ""
    assert words.slowest("", (alike, alike), (before_decoding(alike), before_decoding(alike))) == (
        "The slowest 1% by time to first token spent 600 ms before it, requests around the median 600 ms. "
        "To the last token they took 1.00 s, against 1.00 s."
    )


def test_a_stall_before_the_first_token_is_told_there_and_not_after_it() -> None:
    tail, first = [0, 0, 100.0, 0, 0, 0, 4.0, 0, 0, 250.0], [0, 0, 100.0, 0, 0, 0, 0, 0, 0, 200.0]
    text = words.slowest("", (tail, [0.0] * 10), (first, [0.0] * 10))
    assert "spent 300 s before it" in text.replace("5.00 min", "300 s")
    assert "most first: stalled by a fault (200 s, against none)" in text.replace("3.33 min", "200 s")
    assert "after the first: stalled by a fault (50.0 s, against none)" in text


def test_what_a_client_measured_is_told_in_what_a_client_knows() -> None:
    known = parts.Kind(words.PART_NAMES, style.PARTS)

    def told(kind: str, waited_s: float = 0.0) -> str:
        median = np.array([0, 0, 0, 0, 0, 1.0, 1.0, 0, 0, 0])
        tail = np.array([waited_s, 0, 0, 0, 0, 3.0, 2.0, 0, 0, 0])
        first = np.arange(10) < 6
        group = parts.Group("", median, tail, median * first, tail * first)
        return parts.told(group, parts.as_known(known, kind).names)

    said = "The slowest 1% by time to first token spent 3.00 s before it, requests around the median 1.00 s. "
    assert told("measured") == said + "To the last token they took 5.00 s, against 2.00 s."  # and nothing twice
    first = np.arange(10) == 5
    group = parts.Group("", 1.0 * first, 3.0 * first, 1.0 * first, 3.0 * first)
    said = "the slowest 1% spent 2.0 s more than the median before the first token"
    assert parts.grew(group, parts.as_known(known, "measured")) == said
    assert parts.grew(group, known).endswith(
        "computing the prompt (prefill): nearly all of what delayed their first token"
    )
    both = "first: before the first token (3.00 s, against 1.00 s) and waiting in the client (1.00 s, against none)"
    assert both in told("measured", 1.0)
    assert "computing the prompt (prefill) (3.00 s, against 1.00 s)" in told("simulated")


def test_every_part_of_latency_has_a_name_and_a_colour() -> None:
    from sim.report import style

    assert tuple(words.PART_NAMES) == PARTS
    assert tuple(style.PARTS) == PARTS
    assert len(set(style.PARTS.values())) == len(PARTS)


# --- percentiles ----------------------------------------------------------------------------------------------------


def test_figures_and_tables_have_the_same_percentiles() -> None:
    counts = arrays(1, 2.0)["ttft_by_window"]
    fractions = np.array([0.5, 0.95, 0.99])
    found = quantiles(EDGES_S, counts, fractions)
    expected = [[summary.percentile(row, fraction) for fraction in fractions] for row in counts]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_percentiles_of_nothing_are_not_numbers() -> None:
    assert np.isnan(quantiles(EDGES_S, np.zeros((3, BINS)), np.array([0.5]))).all()


def test_windows_are_merged_until_they_hold_enough_for_a_p99(tmp_path: Path) -> None:
    thin = view(make_run(tmp_path / "thin", per_window=50))
    assert merged_windows(thin.points) == 4
    t_s, rows = thin.points[0].over_time("ttft", np.array([0.5]), 4)
    assert rows.shape == (1, 15, 1)
    assert t_s[0] == 60.0
    assert t_s[-1] == 1800.0 - 60.0
    many = view(make_run(tmp_path / "many", windows=900, per_window=300))
    assert merged_windows(many.points) == 5


def test_leftover_windows_join_the_last(tmp_path: Path) -> None:
    point = view(make_run(tmp_path)).points[0]
    t_s, rows = point.over_time("e2e", np.array([0.5]), 7)
    assert len(t_s) == rows.shape[1] == 8
    assert t_s[-1] == pytest.approx((49 + 60) / 2 * 30)


# --- figures --------------------------------------------------------------------------------------------------------


def test_a_sweep_has_a_blow_out_figure_and_its_title_tells_the_paired_ratio(cliff: Run) -> None:
    assert [path.name for path in report.write_figures(cliff)] == [
        f"{name}.png" for name in ("blowout", "timeline", "distribution", "where-time-went")
    ]
    seen = view(cliff)
    ratio = sweep.paired_ratio(seen.points[0], seen.points[1], "ttft_p99")
    plate = sweep.plate(seen)
    assert plate
    assert plate.title.startswith(f"P99 time to first token grows {words.times(ratio)} between 6 and 6.3 requests/s")
    assert "P50 hardly moves" in plate.title


def test_the_blow_out_is_told_between_neighbouring_loads_and_not_where_everything_is_slow(tmp_path: Path) -> None:
    def point(rate, p50, p99):
        values = {"ttft_p50": Estimate(p50, p50, p50, (p50,)), "ttft_p99": Estimate(p99, p99, p99, (p99,))}
        return Point({RATE: rate}, f"{rate} requests/s", values, ())

    points = [point(4, 0.02, 0.05), point(6, 0.02, 0.06), point(7, 0.021, 1.6), point(8, 20.0, 30.0)]
    first, last = sweep.jump(points, RATE)
    assert (first.values[RATE], last.values[RATE]) == (6, 7)
    first, last = sweep.jump([points[0], points[3]], RATE)
    assert (first.values[RATE], last.values[RATE]) == (4, 8)


def test_what_varies_by_name_has_no_blow_out_figure(tmp_path: Path) -> None:
    vary = {"fleet.router": ["random", "round_robin", "least_outstanding"]}
    run = make_run(tmp_path, (0.05, 0.5, 2.0), 2, vary=vary)
    assert [path.stem for path in report.write_figures(run)] == ["timeline", "distribution", "where-time-went"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_point_is_enough(tmp_path: Path, seeds: int) -> None:
    run = make_run(tmp_path, seeds=seeds)
    assert [path.stem for path in report.write_figures(run)] == ["timeline", "distribution", "where-time-went"]
    report.write_html(run)


@pytest.mark.parametrize("points", [3, 7])
def test_long_sweeps_show_some_of_their_points(tmp_path: Path, points: int) -> None:
    run = make_run(tmp_path, np.geomspace(0.05, 4, points), 2)
    assert len(report.write_figures(run)) == 4
    assert ("points are shown" in timeline.plate(view(run)).caption) == (points > timeline.MOST_COLUMNS)
    assert all(f"{6 + 0.3 * i:g} requests/s" in shown(run) for i in range(points))


def test_a_run_in_which_nobody_asked_anything_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, (0.05, 0.05), 2, requests=False)
    report.write_figures(run)
    assert "TTFT P99" in report.write_html(run).read_text()
    assert "–" in shown(run)


def test_a_run_of_which_nothing_was_finished_says_so(tmp_path: Path) -> None:
    make_run(tmp_path)
    summary_json = json.loads((tmp_path / "summary.json").read_text())
    write_json(tmp_path / "summary.json", summary_json | {"points": []})
    run = Run.open(tmp_path)
    assert report.write_figures(run) == []
    assert "Nothing was finished" in report.write_html(run).read_text()
    assert "Nothing was finished" in shown(run)


def test_wrong_answers_have_a_figure_only_where_there_are_any(tmp_path: Path) -> None:
    run = make_run(tmp_path, wrong_per_minute=40.0, seeds=2)
    assert "wrong-answers" in [path.stem for path in report.write_figures(run)]
    plate = wrong.plate(view(run))
    total = round(view(run).points[0].minutes("wrong").sum())
    assert f"{total:,} in all" in plate.title
    assert "wrong answers" in shown(run)


def test_the_moment_at_which_a_round_number_is_passed() -> None:
    assert wrong.crossings(np.full(30, 50.0)) == [(100, 2.0), (1000, 20.0)]
    assert wrong.crossings(np.array([1.0, 0.0])) == []
    assert wrong.peak_hour(np.r_[np.zeros(60), np.full(60, 5.0), np.zeros(60)]) == (5.0, 60)


def test_figures_that_a_run_no_longer_has_are_removed_and_others_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "figures").mkdir()
    for name in ("wrong-answers.png", "mine.png"):
        (tmp_path / "figures" / name).write_bytes(b"")
    report.write_figures(run)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {
        "mine",
        "timeline",
        "distribution",
        "where-time-went",
    }


def test_drawing_twice_gives_the_same_bytes(cliff: Run) -> None:
    paths = [*sorted((cliff.path / "figures").glob("*.png")), cliff.path / "report.html"]
    before = [path.read_bytes() for path in paths]
    again = Run.open(cliff.path)
    report.write_figures(again)
    report.write_html(again)
    assert [path.read_bytes() for path in paths] == before


def test_every_figure_says_what_it_rests_on(cliff: Run) -> None:
    import matplotlib as mpl

    from sim.report import style

    for plate in figures.plates(view(cliff)):
        with mpl.rc_context(style.SETTINGS):
            text = words_in(plate.draw())
        assert "KV cache set by hand to 4,000 blocks" in text
        assert "uncalibrated" in text
        assert "10 seeds of 30 min" in text
        assert plate.title in text.replace("\u00a0", " ")
        assert len(plate.caption) > 80


def written_in(figure):
    """Every text of a figure that is drawn."""
    yield from figure.texts
    yield from (text for legend in figure.legends for text in legend.get_texts())
    for ax in figure.axes:
        yield from (*ax.texts, ax.xaxis.label, ax.yaxis.label, ax._left_title)
        for axis, ends, place in ((ax.xaxis, ax.get_xlim(), 0), (ax.yaxis, ax.get_ylim(), 1)):
            for label in axis.get_ticklabels():
                if ends[0] <= label.get_position()[place] <= ends[1]:
                    yield label


@pytest.mark.parametrize("kind", ["cliff", "long names", "long times", "short times"])
def test_nothing_written_runs_out_of_its_figure(kind: str, cliff: Run, tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from sim.report import style

    routers = {"fleet.router": ["random", "round_robin", "least_outstanding"]}
    run = {
        "cliff": lambda: cliff,
        "long names": lambda: make_run(tmp_path, (0.05, 0.5, 2.0), vary=routers, wrong_per_minute=7e4),
        "long times": lambda: make_run(tmp_path, (2.0, 900.0), 2, override=True, notes=["all is a guess " * 20]),
        "short times": lambda: make_run(tmp_path, (1e-4, 1e-4), 2, wrong_per_minute=0.01),
    }[kind]()
    for plate in figures.plates(view(run)):
        with mpl.rc_context(style.SETTINGS):
            figure = plate.draw()
            FigureCanvasAgg(figure).draw()
            for text in written_in(figure):
                if text.get_text() and text.get_visible():
                    box, page = text.get_window_extent(), figure.bbox
                    inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
                    assert inside, f"{plate.name}: {text.get_text()!r} at {box} of {page}"


def test_where_the_time_went_names_what_grew_most_before_the_first_token(cliff: Run) -> None:
    plate = parts.plate(view(cliff))
    assert plate.title.startswith(
        "At 6.3 requests/s, the slowest 1% spent 2.0 s more than the median waiting for KV cache"
    )
    assert "nearly all" in plate.title


def test_scrapes_are_merged_but_keep_their_extremes(tmp_path: Path) -> None:
    point = view(make_run(tmp_path)).points[0]
    seen = timeline.scrapes(point, 0)
    low, mean, high = seen.kv
    assert (low <= mean).all()
    assert (mean <= high).all()
    table = point.members[0].series()
    assert high.max() == max(table["vllm:kv_cache_usage_perc"].to_pylist())
    total = np.asarray(table["vllm:num_requests_running"]).reshape(-1, 2).sum(axis=1)
    np.testing.assert_allclose(seen.running[1], total)


def test_points_that_were_played_differently_often_are_drawn(tmp_path: Path) -> None:
    """As `load knee` leaves them: it plays a stage again only where it is not sure."""
    run = make_run(tmp_path, (0.05, 2.0), seeds=3)
    calm, busy = run.summary["points"]
    info = json.loads((tmp_path / "run.json").read_text())
    info["members"] = [m for m in info["members"] if m["point"] == busy["point"] or m["seed"] == 1]
    write_json(tmp_path / "run.json", info)
    calm["seeds"] = [1]
    write_json(tmp_path / "summary.json", run.summary)
    seen = view(Run.open(tmp_path))
    assert [len(point.members) for point in seen.points] == [1, 3]
    assert report.write_figures(Run.open(tmp_path))
    for seed, said in ((0, "1"), (2, "1, 3")):
        assert timeline._number(seen.points, seed) == said


def test_scrapes_are_held_and_not_joined_by_ramps(tmp_path: Path) -> None:
    figure = timeline.plate(view(make_run(tmp_path, seeds=2))).draw()
    for ax in figure.axes[2:4]:
        assert {line.get_drawstyle() for line in ax.lines} == {"steps-post"}


def test_a_value_between_two_gaps_is_seen_and_a_gap_stays_one() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    style.line(ax, np.arange(6.0), np.array([1.0, 2.0, np.nan, 3.0, np.nan, np.nan]))
    assert ax.lines[0].get_markevery() == [3]
    assert np.isnan(ax.lines[0].get_ydata()[[2, 4, 5]]).all()


def test_windows_are_merged_where_most_of_them_are_empty(tmp_path: Path) -> None:
    run = make_run(tmp_path, windows=240, per_window=1)
    path = run.members[0].path / "histograms.npz"
    arrays_ = dict(np.load(path))
    for name in ("ttft_by_window", "e2e_by_window"):
        arrays_[name][np.arange(240) % 3 > 0] = 0
    np.savez_compressed(path, **arrays_)
    seen = view(Run.open(run.path))
    assert merged_windows(seen.points) == 20
    assert np.isfinite(seen.points[0].over_time("ttft", np.array([0.99]), 20)[1]).all()


@pytest.mark.parametrize("seeds", [2, 10])
def test_latency_lies_in_its_band_and_the_one_seed_says_so(tmp_path: Path, seeds: int) -> None:
    seen = view(make_run(tmp_path, seeds=seeds))
    figure = timeline.plate(seen).draw()
    point = seen.points[0]
    _, rows = point.over_time("ttft", timeline.FRACTIONS, merged_windows(seen.points))
    one, middle = figure.axes[0].lines[:2]
    low, high = rows[:, :, 2].min(axis=0), rows[:, :, 2].max(axis=0)
    expected = np.median(rows[:, :, 2], axis=0) if seeds >= 10 else rows[:, :, 2].mean(axis=0)
    np.testing.assert_allclose(middle.get_ydata(), expected)
    assert ((low <= middle.get_ydata()) & (middle.get_ydata() <= high)).all()
    assert one.get_linewidth() < middle.get_linewidth()
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"P99, {point.centre} of {seeds} seeds" in said
    assert any(re.fullmatch(r"KV cache \(seed \d+\)", text) for text in said)


# --- text -----------------------------------------------------------------------------------------------------------


def test_text_for_a_file_is_plain_and_always_the_same(cliff: Run) -> None:
    text = shown(cliff)
    assert text == shown(Run.open(cliff.path))
    assert "\x1b" not in text
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert "987" not in text  # the wall time


def test_the_table_gives_every_point_with_intervals(cliff: Run) -> None:
    lines = shown(cliff).splitlines()
    p99 = next(line for line in lines if "TTFT P99" in line)
    assert len(re.findall(r"[\d.]+ m?s \[[\d.]+, [\d.]+\]", p99)) == 2
    assert any("6 requests/s" in line and "6.3 requests/s" in line for line in lines)
    assert any(
        "10 seeds of 30 min; median over seeds [95% interval of the median]; uncalibrated" in line for line in lines
    )


def test_claims_show_estimate_interval_bound_and_verdict(cliff: Run) -> None:
    text = shown(cliff)
    assert re.search(r"✓ holds +tail +27\.6 \[18\.2, 41\.3\] +≥ 10 ", text)
    assert re.search(r"✗ fails +median +31\.0 ms \[30\.0, 32\.0\] +≥ 2\.00 s ", text)
    assert "1 of 2 claims fails." in text
    assert tables.tally([verdict()]) == "The claim holds."
    assert tables.tally([verdict()] * 3) == "All 3 claims hold."
    assert tables.bound(verdict(op="within", bound=0.05, estimate=0.02)) == "± 5%"


def test_the_reason_stands_beside_the_table(cliff: Run) -> None:
    assert "the slowest 1% by time to first token spent" in shown(cliff)
    assert "waiting for KV cache blocks (2.00 s, against none)" in " ".join(shown(cliff).split())


def test_assumptions_are_said_once_each(tmp_path: Path, cliff: Run) -> None:
    assert shown(cliff).lower().count("uncalibrated:") == 1
    note = "uncalibrated: step times are estimates"
    run = make_run(tmp_path, notes=[note])
    assert tables.assumptions(run) == [note, "one seed: these numbers have no interval"]


def test_next_commands_can_be_typed(tmp_path: Path, cliff: Run) -> None:
    assert tables.next_commands(cliff)[0][0] == str(cliff.path / "report.html")
    more = f"blowout run {cliff.path / 'scenario.yaml'} --set fleet.pools.main.replicas=3"
    assert any(line.strip().startswith(f"{more}   # ") for line in shown(cliff).splitlines())
    scenario.load(cliff.path / "scenario.yaml", ["fleet.pools.main.replicas=3"])
    run = make_run(tmp_path)
    assert tables.next_commands(run)[0][0] == f"blowout report {tmp_path}"
    assert any("--seeds 10" in command for command, _ in tables.next_commands(run))


def test_a_terminal_without_the_signs_gets_question_marks(cliff: Run) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    tables.show(cliff, file)
    file.flush()
    assert b"? holds" in raw.getvalue()


def test_headline_returns_what_rich_can_print(cliff: Run) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100)
    for renderable in [*tables.headline(cliff), *tables.claims(cliff)]:
        console.print(renderable)
    assert "TTFT P50" in console.file.getvalue()


def test_the_summary_for_programs_is_json(tmp_path: Path, cliff: Run) -> None:
    found = json.loads(json.dumps(report.summary_json(cliff), allow_nan=False))
    assert found["passed"] is False
    assert [point["point"] for point in found["points"]] == [{RATE: 6.0}, {RATE: 6.3}]
    assert found["uncalibrated"] is True
    assert found["why"]
    assert report.summary_json(make_run(tmp_path, requests=False))["passed"] is None


# --- the page -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that tags match, and collects images and what comes from elsewhere."""

    void = {"meta", "img", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        self.links += [value for key, value in attrs if key in ("src", "href", "action")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_page_stands_alone(cliff: Run) -> None:
    text = (cliff.path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.images) == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "://" not in re.sub(r"base64,[\w+/=]+", "", text)
    assert "@import" not in text
    assert all(len(image["alt"]) > 80 for image in page.images)


def test_the_page_tells_the_story_the_verdict_the_reason_and_how_to_do_it_again(cliff: Run) -> None:
    text = Page((cliff.path / "report.html").read_text(encoding="utf-8")).text
    told = [
        *(
            "A <small> service",
            "Nothing much happens & that is the point.",
            "1 of 2 claims fails.",
            "27.6 [18.2, 41.3]",
        ),
        *(
            "the slowest 1% by time to first token spent",
            "TTFT P99",
            "uncalibrated",
            "KV cache set by hand to 4,000 blocks",
        ),
        *("blowout run 'my scenario.yaml'", "blowout 0.1.0", "kv_blocks: 4000"),
    ]
    assert [phrase for phrase in told if phrase not in text] == []
    assert "987" not in text


def test_a_page_without_figures_says_how_to_get_them(tmp_path: Path) -> None:
    page = Page(report.write_html(make_run(tmp_path)).read_text(encoding="utf-8"))
    assert page.images == []
    assert f"blowout report {tmp_path}" in page.text
    assert "the slowest 1% by time to first token" in page.text.lower()


# --- manners --------------------------------------------------------------------------------------------------------


def test_the_report_is_about_the_worst_point(cliff: Run) -> None:
    assert worst(view(cliff).points).label == "6.3 requests/s"


def test_a_run_is_unpacked_once_and_another_run_anew(cliff: Run) -> None:
    seen = view(cliff)
    assert view(cliff) is seen
    assert view(Run.open(cliff.path)) is not seen


def test_asking_for_the_report_loads_no_heavy_library(root: Path) -> None:
    import subprocess

    code = "import sys, sim.report; print([m for m in ('matplotlib', 'rich', 'pyarrow', 'numba') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"
