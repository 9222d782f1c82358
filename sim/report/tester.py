"""Of a measured run: whether the tester did its part, and what another kind of tester would have claimed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sim import results
from sim.report import printing, words
from sim.report.view import View

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.results import Member

TOPIC = "The tester"
FILE = "tester.json"
ROWS = {
    "ttft_p50": "TTFT P50",
    "ttft_p95": "TTFT P95",
    "ttft_p99": "TTFT P99",
    "e2e_p50": "e2e P50",
    "e2e_p95": "e2e P95",
    "e2e_p99": "e2e P99",
}


def found(member: "Member") -> dict[str, Any] | None:
    """Return what is known of the tester of *member*; None of a simulated one, which has none."""
    path = member.path / FILE
    return results.read_json(path, "valid", "wrong", "claims") if path.exists() else None


def of(view: View) -> list[tuple[str, dict[str, Any]]]:
    """Return the testers of every measured point and seed, with what tells them apart."""
    members = [(point, member) for point in view.points for member in point.members]
    return [
        (f"{point.label} seed {member.seed}: ".lstrip() if len(members) > 1 else "", one)
        for point, member in members
        if (one := found(member)) is not None
    ]


def sentences(view: View) -> list[str]:
    """Return for each measured run what became of the tester: sent, late, dropped, and what went wrong how often."""
    lines = []
    for label, one in of(view):
        lag, gaps = one["send_lag_s"], one["gaps_cv"]
        verdict = "Valid" if one["valid"] else f"NOT VALID ({'; '.join(one['wrong'])})"
        varies = (
            ""
            if gaps["sent"] is None
            else (
                f"; gaps between them vary by {words.significant(gaps['sent'], 3)}, planned "
                f"{words.significant(gaps['scheduled'], 3)} (coefficient of variation)"
            )
        )
        late = f"{_ms(lag['p50'])} late at the median and {_ms(lag['p99'])} at P99"
        sent = f"{one['sent']:,} of {one['planned']:,} planned requests sent"
        lines.append(f"{label}{verdict}: {sent}, {late}{varies}.")
        if one["errors"]:
            many = [f"{n:,} {kind.replace('_', ' ')}" for kind, n in one["errors"].items()]
            lines.append(f"{label}Attempts that went wrong: {words.listing(many)}.")
    return lines


def table(view: View) -> list[list[str]]:
    """Return head and rows: each latency from the schedule, from the send, and as a closed loop would have claimed."""
    testers = of(view)
    if not testers or not testers[0][1]["claims"]:
        return []
    rows = [["", "from the schedule", "from the send", "a closed loop would claim"]]
    for label, one in testers:
        claims: Mapping[str, Any] = one["claims"]
        for metric, name in ROWS.items() if claims else ():
            times = [_s(claims[metric][which]) for which in ("schedule", "send", "closed")]
            rows.append([f"{label}{name}", *times])
    return rows


def block(view: View) -> list["RenderableType"]:
    """Return all of it for a terminal; nothing of a simulated run."""
    from rich.text import Text

    lines: list[RenderableType] = [Text(line) for line in sentences(view)]
    if rows := table(view):
        lines.append(printing.table(rows[0], rows[1:]))
    return lines


def _s(value: float | None) -> str:
    return words.seconds(words.to_float(value))


def _ms(value: float | None) -> str:
    return words.seconds(words.to_float(value), 2)
