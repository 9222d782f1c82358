"""One self-contained page about a run, to send to a colleague: it asks no other host for anything."""

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.report import checked, parts, tables, tester, twins, words
from sim.report.figures import plates
from sim.report.style import Plate
from sim.report.view import View, highest, lowest, view

if TYPE_CHECKING:
    from sim.results import Run

TILES = ("ttft_p50", "ttft_p99", "e2e_p99", "kv_mean")
KEY = ("ttft_p50", "ttft_p99")
GLOSSARY = (
    ("TTFT", "time to first token: from the moment the user acts to the first token of the answer"),
    ("e2e", "end to end: to the last token"),
    ("ITL, TPOT", "time between two tokens; the mean of it over an answer"),
    ("P99", "one request in a hundred took longer"),
    ("KV cache", "GPU memory that holds what was read and written so far, in blocks; a request without blocks waits"),
    ("preemption", "a running request loses its blocks to others and is computed again later"),
    ("seed", "one draw of users and luck; an interval says how much the estimate depends on it"),
)


def write_html(run: "Run") -> Path:
    """Write ``report.html`` into the folder of *run*, with those of its figures that were drawn, and return it."""
    seen = view(run)
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            *_head(seen),
            *_tiles(seen),
            *_verdict(run),
            *_section(twins.TOPIC, [f"<p>{escape(text)}</p>" for text in twins.sentences(seen)]),
            *_section(tester.TOPIC, _tester(seen)),
            *_section(checked.TOPIC, _checked(run)),
            *_figures(run, plates(seen)),
            *_numbers(seen),
            *_section(
                "What these numbers rest on", [_list(tables.assumptions(run))] if tables.assumptions(run) else []
            ),
            *_again(run, seen),
            *_section("Words", [_definitions(GLOSSARY)]),
        ]
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(seen.heading)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n{body}\n"
        '<footer class="small">Written by Blowout, from nothing but the run folder that this page lies in.</footer>\n'
        "</main>\n</body>\n</html>\n"
    )
    path = Path(run.path) / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _head(seen: View) -> list[str]:
    notes = [seen.kind, f"{seen.seeds} seed{'s' * (seen.seeds != 1)} of {words.lasting(seen.duration_s)}"]
    notes += ["uncalibrated"] * seen.uncalibrated + [seen.kv_note] * bool(seen.kv_note)
    badges = "".join(f"<li>{escape(note)}</li>" for note in notes)
    story = [f"<p>{escape(seen.story)}</p>"] if seen.story else []
    kicker = [] if seen.title == seen.name else [f'<p class="kicker">{escape(seen.name)}</p>']
    return [*kicker, f"<h1>{escape(seen.title)}</h1>", *story, f'<ul class="badges">{badges}</ul>']


def _verdict(run: "Run") -> list[str]:
    if not run.verdicts:
        return []
    good = all(verdict["passed"] for verdict in run.verdicts)
    mark, look = ("✓", "good") if good else ("✗", "bad")
    return [f'<p class="verdict {look}">{mark} {escape(tables.tally(run.verdicts))}</p>', _claims(run.verdicts)]


def _tester(seen: View) -> list[str]:
    rows = tester.table(seen)
    told = [f"<p>{escape(text)}</p>" for text in tester.sentences(seen)]
    return [*told, *([_table(rows[0], [(False, [escape(cell) for cell in row]) for row in rows[1:]])] if rows else [])]


def _checked(run: "Run") -> list[str]:
    rows = checked.table(run)
    return [_table(rows[0], [(False, [escape(cell) for cell in row]) for row in rows[1:]])] if rows else []


def _tiles(seen: View) -> list[str]:
    """Return the four figures to know, at the worst point, each above what it is at the calmest (or the best)."""
    if not seen.points:
        return ["<p>Nothing was finished.</p>"]
    # Of what it is about the first, and then what differs between its points.
    rest = sorted(seen.lead[1:], key=lambda metric: len({tables.cell(point, metric) for point in seen.points}) == 1)
    shown = [*seen.lead[:1], *rest][: len(TILES)] or TILES
    by = shown[0] if seen.lead else "ttft_p99"
    bad, good = highest(seen.points, by), lowest(seen.points, by)
    tiles = []
    for metric in shown:
        where = [words.place(bad.label)] if bad.label else []
        if bad is not good:
            where.append(f"{tables.alone(good, metric)} {words.place(good.label)}")
        value = tables.alone(bad, metric)
        tiles.append(
            f'<div class="tile"><span>{escape(tables.name(metric))}</span><b>{escape(value)}</b>'
            f"<span>{escape('; '.join(where))}</span></div>"
        )
    return [f'<div class="tiles">{"".join(tiles)}</div>']


def _figures(run: "Run", shown: Sequence[Plate]) -> list[str]:
    """Return every figure that was drawn with its caption, and why the slowest 1% were slow where that is shown."""
    told = [f"<p>{escape(text)}</p>" for text in tables.why(view(run))]
    lines = []
    for plate in shown:
        path = Path(run.path) / "figures" / f"{plate.name}.png"
        if not path.exists():
            continue
        lines.append(f"<h2>{escape(plate.topic)}</h2>")
        if plate.name == "where-time-went":
            lines, told = [*lines, *told], []
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        alt = f"Figure: {plate.title}. {plate.caption}"
        lines.append(
            f'<figure><div class="scroll" tabindex="0"><img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
            f"</div><figcaption>{escape(plate.caption)}</figcaption></figure>"
        )
    if not lines:
        lines.append(
            f'<p class="small">No figures were drawn; <code>blowout report {escape(str(run.path))}</code> does.</p>'
        )
    return lines + _section(parts.TOPIC, told)


def _numbers(seen: View) -> list[str]:
    if not seen.points:
        return []
    shown = tables.grid(seen)
    rows = [
        (i in shown.key, [escape(title), *(_quiet(cells[i]) for _, cells in shown.columns)])
        for i, title in enumerate(shown.rows)
    ]
    lines = [_table(["", *(title for title, _ in shown.columns)], rows)]
    lines += [
        f'<p class="small">{escape(line)}</p>' for line in (shown.same, f"{tables.about(seen).capitalize()}.") if line
    ]
    return _section("The numbers", lines)


def _quiet(text: str) -> str:
    """Return an estimate with its interval, the interval in a quieter colour."""
    return re.sub(r"( )([\[(].*)", r"\1<i>\2</i>", escape(text))


def _table(head: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]]) -> str:
    """Return a table; *rows* say whether they are the ones to look at, and hold HTML."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr{" class=key" * key}><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        for key, (first, *cells) in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _claims(verdicts: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for verdict in verdicts:
        mark = '<b class="good">✓ holds</b>' if verdict["passed"] else '<b class="bad">✗ fails</b>'
        cells = [escape(verdict["name"]), mark, escape(tables.found(verdict)), escape(tables.bound(verdict))]
        rows.append((False, [*cells, f"<code>{escape(verdict['text'])}</code>"]))
    table = _table(["claim", "", "found", "bound", "as the scenario says it"], rows)
    return "".join([table, *(f'<p class="small">{escape(line)}</p>' for line in tables.few_seeds(verdicts))])


def _again(run: "Run", seen: View) -> list[str]:
    """Return how to get the same numbers: command, seeds, versions, and the whole scenario folded away."""
    info = run.info
    command = info.get("command") or ["blowout", "run", "scenario.yaml"]
    versions = ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items())
    seeds = ", ".join(str(seed) for seed in info.get("seeds", []))
    scenario = (Path(run.path) / "scenario.yaml").read_text(encoding="utf-8")
    facts = [
        ("seeds", seeds),
        ("versions", versions),
        ("scenario, SHA-256", str(info.get("scenario_sha256", ""))),
    ]
    return _section(
        "Once more",
        [
            f"<pre>{escape(command if isinstance(command, str) else shlex.join(command))}</pre>",
            "<p>or, with every default as it was, save the scenario below as <code>scenario.yaml</code> and type</p>",
            f"<pre>blowout run scenario.yaml --seeds {seen.seeds}</pre>",
            _definitions((name, value) for name, value in facts if value),
            f"<details><summary>The scenario, every default filled in</summary><pre>{escape(scenario)}</pre></details>",
        ],
    )


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<section>\n<h2>{escape(title)}</h2>", *lines, "</section>"] if lines else []


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return '<p class="small">' + "<br>".join(f"<b>{escape(a)}</b>: {escape(b)}" for a, b in pairs) + "</p>"
