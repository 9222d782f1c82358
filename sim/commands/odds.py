"""``blowout odds``: what an error rate comes to, on the back of an envelope, with units that fit together."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.common import JSON, options
from sim.errors import InputError
from sim.interrupts import to_a_reader
from sim.units import NUMBER, duration_s, fraction

if TYPE_CHECKING:
    from sim.report.odds import Chain, Question
    from sim.theory.chance import Interval

EXAMPLE = "--users 10e6 --per-day 1 --error 1%"
PARTS = ("request", "segment", "record")
NEEDED = {
    "per-day": ("users",),
    "peak": ("users", "requests", "records"),
    "repair": ("users", "requests", "records"),
    "step-ok": ("steps",),
    "steps": ("step-ok",),
    "verifier": ("steps",),
    "retries": ("verifier",),
    "tested": ("wrong",),
    "wrong": ("tested",),
    "stakes": ("review-cost",),
    "review-cost": ("stakes",),
    "reversible": ("stakes",),
    "detectable": ("stakes",),
    "catch": ("stakes",),
    "segments": ("error",),
    "judge": ("error", "steps", "tested"),
}
"""Options that say nothing unless one of others is there."""
SCALES = {"": 1.0, "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
"""What may follow a number of users, requests or costs: 10M, 10 million."""
LEAST = 1e-12
"""The smallest share or number that is counted with; below, formulas run out of digits."""


@click.command()
@options(
    click.option("--users", metavar="N", help="How many users; with --per-day."),
    click.option("--per-day", metavar="N", help="Requests (or records) of one user a day."),
    click.option("--requests", metavar="N", help="Requests a day, in place of users."),
    click.option("--records", metavar="N", help="Records a day, in place of users."),
    click.option("--error", metavar="SHARE[/UNIT]", help="How often one is wrong: 1%, 0.01, 1%/segment, 1%/record."),
    click.option("--segments", metavar="N", help="Segments of a record, any of which spoils it."),
    click.option("--peak", metavar="K", help="The busiest minute over the mean one, 1 to 2."),
    click.option("--steps", metavar="N", help="Steps of an agent's task that must all be right."),
    click.option("--step-ok", metavar="SHARE", help="How often one step is right."),
    click.option("--verifier", metavar="D:F", help="Flags D of wrong steps and F of right ones: 80%:5%."),
    click.option("--retries", metavar="N", help="Retries of a flagged step at most [until one passes]."),
    click.option("--tested", metavar="N", help="Size of a test set; with --wrong."),
    click.option("--wrong", metavar="N", help="How many of the tested were wrong."),
    click.option("--judge", metavar="SE:SP", help="A judging model: flags SE of wrong, passes SP of right: 90%:95%."),
    click.option("--stakes", metavar="COST", help="What a wrong answer costs; with --review-cost."),
    click.option("--review-cost", metavar="COST", help="What it costs that somebody looks at one answer."),
    click.option("--reversible", metavar="SHARE", help="Of wrong answers, can be undone once noticed [0]."),
    click.option("--detectable", metavar="SHARE", help="Of wrong answers, noticed by whoever gets them [0]."),
    click.option("--catch", metavar="SHARE", help="Of wrong answers, stopped by somebody who looks [100%]."),
    click.option("--repair", metavar="TIME", help="Work to repair one wrong answer: 10m."),
    JSON,
)
def command(as_json: bool, **given: str | None) -> int:
    """Say what an error rate comes to: wrong answers a day, before noon, a chain of steps, good enough or not.

    For example: blowout odds --users 10e6 --per-day 1 --error 1%
    """
    from sim.report import odds

    texts = {name.replace("_", "-"): text for name, text in given.items() if text is not None}
    asked = question(texts)
    with to_a_reader():
        if as_json:
            from sim.results import plain

            click.echo(json.dumps(plain(odds.as_json(asked)), indent=1))
        else:
            odds.show(asked, _next(texts), sys.stdout)
    return 0


def question(texts: dict[str, str]) -> "Question":
    """Return what the options ask; refuses those that say nothing, say a thing twice, or count in other units.

    Raises:
        InputError: one sentence.
    """
    from sim.quality.decision import Stakes
    from sim.report.odds import Question

    for name, others in NEEDED.items():
        if name in texts and not any(other in texts for other in others):
            raise InputError(f"--{name} says nothing alone; give it with --{' or --'.join(others)}")
    sources = [name for name in ("error", "steps", "tested") if name in texts]
    if not sources:
        raise InputError(
            f"how often is it wrong? Give --error, --steps or --tested; for example blowout odds {EXAMPLE}"
        )
    if len(sources) > 1:
        raise InputError(f"--{sources[0]} and --{sources[1]} both say how often it is wrong; give one of them")
    unit, error, segment_error, segments = _wrong(texts)
    per_day, users = _asked(texts, unit)
    more: dict[str, Any] = {}
    if "stakes" in texts:
        shares = {name: _share(texts, name) for name in ("reversible", "detectable", "catch") if name in texts}
        more["stakes"] = Stakes(_number(texts, "stakes"), _number(texts, "review-cost"), **shares)
    if "peak" in texts:
        more["peak"] = _number(texts, "peak", 1, 2, ", the busiest minute over the mean of a day that is a sinusoid")
    if "repair" in texts:
        try:
            more["repair_s"] = duration_s(texts["repair"])
        except ValueError as wrong:
            raise InputError(f"--repair: {wrong}") from None
    if "tested" in texts:
        more["tested"] = (int(_number(texts, "wrong", whole=True)), int(_number(texts, "tested", whole=True)))
    if "judge" in texts:
        more["judge"] = se, sp = _pair(texts, "judge", "SE:SP, such as 90%:95%")
        if se + sp <= 1:
            raise InputError(
                "--judge: expected SE + SP above 100%: this judge flags right answers as often as wrong ones"
            )
    return Question(
        unit, error, per_day, users, segments=segments, segment_error=segment_error, chain=_chain(texts), **more
    )


def _wrong(texts: dict[str, str]) -> tuple[str, "Interval", float | None, int | None]:
    """Return the unit, its error rate, the error of a segment if there are any, and their number."""
    from sim.quality.volume import record_error
    from sim.theory.chance import Interval, clopper_pearson, compound

    if (chain := _chain(texts)) is not None:
        from sim.quality.chains import verified

        step = chain.step_ok
        if chain.verifier is not None:
            step = verified(step, *chain.verifier, chain.retries).right
        failed = 1 - compound(step, chain.steps)
        return "task", Interval(failed, failed, failed), None, None
    if "tested" in texts:
        wrong, tested = _number(texts, "wrong", whole=True), _number(texts, "tested", least=1, whole=True)
        if wrong > tested:
            raise InputError(f"--wrong: expected at most the {tested:,.0f} of --tested, got {wrong:,.0f}")
        return ("record" if "records" in texts else "request"), clopper_pearson(int(wrong), int(tested)), None, None
    text, _, said = texts["error"].partition("/")
    said = said.strip().removesuffix("s")
    if "/" in texts["error"] and said not in PARTS:
        raise InputError(
            f"--error: expected a share of requests, segments or records (1%/segment), got {texts['error']!r}"
        )
    error = _share({"error": text}, "error")
    if error == 1 and "%" not in text:
        raise InputError(f"--error {text.strip()}: did you mean 1%? Write 100% if all are wrong")
    segments = int(_number(texts, "segments", least=1, whole=True)) if "segments" in texts else None
    unit, segment = _units(said, segments, text.strip(), "records" in texts), None
    if said == "segment" and segments is not None:
        segment, error = error, record_error(error, segments)
    elif segments is not None:
        from sim.quality.volume import segment_error

        segment = segment_error(error, segments)
    return unit, Interval(error, error, error), segment, segments


def _units(said: str, segments: int | None, text: str, records: bool) -> str:
    """Return what is counted, where *said* is the unit of the error; refuses what does not fit."""
    if segments is None and said == "segment":
        raise InputError(f"--error {text}/segment is of segments: say with --segments how many a record has")
    if segments is not None and said not in ("segment", "record"):
        raise InputError(
            f"--error {text} of what? With --segments say --error {text}/segment or --error {text}/record: "
            "they differ by about the number of segments"
        )
    if records and said in ("", "request"):
        raise InputError(
            f"--error {text} is of requests and --records counts records: say --error {text}/record, or --requests"
        )
    return "record" if said in ("segment", "record") else "request"


def _asked(texts: dict[str, str], unit: str) -> tuple[float | None, float | None]:
    """Return how many units are asked a day, and the users if they were named."""
    ways = [name for name in ("users", "requests", "records") if name in texts]
    if len(ways) > 1:
        raise InputError(f"--{ways[0]} and --{ways[1]} both say how many there are; give one of them")
    if not ways:
        return None, None
    if ways == ["users"]:
        if "per-day" not in texts:
            raise InputError(
                f"--users counts people and the error is of {unit}s: say with --per-day how many {unit}s a user makes "
                "a day"
            )
        users = _number(texts, "users")
        return users * _number(texts, "per-day"), users
    if ways == ["requests"] and unit == "record":
        raise InputError(
            "--requests counts requests and the error is of records: say --records, or an error of requests"
        )
    if ways == ["records"] and unit == "task":
        raise InputError("--records counts records and --steps makes tasks: say --requests, or --users with --per-day")
    return _number(texts, ways[0]), None


def _chain(texts: dict[str, str]) -> "Chain | None":
    from sim.report.odds import Chain

    if "steps" not in texts:
        return None
    verifier = _pair(texts, "verifier", "D:F, such as 80%:5%") if "verifier" in texts else None
    retries = int(_number(texts, "retries", whole=True)) if "retries" in texts else None
    return Chain(int(_number(texts, "steps", least=1, whole=True)), _share(texts, "step-ok"), verifier, retries)


def _number(
    texts: dict[str, str], name: str, least: float = 0, most: float = 1e15, why: str = "", whole: bool = False
) -> float:
    import re

    text = texts[name].replace(",", "").replace("_", "").strip()
    match = re.fullmatch(rf"({NUMBER})\s*({'|'.join(SCALES)})?", text.lower())
    value = float(match[1]) * SCALES[match[2] or ""] if match else -1.0
    if 0 < value < LEAST:
        raise InputError(f"--{name}: expected 0 or at least {LEAST:g}, got {texts[name]!r}")
    if not least <= value <= most or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        limit = f"from {least:g} to {most:g}" if most < 1e15 else f"from {least:g} on"
        raise InputError(f"--{name}: expected {kind} {limit}{why}, got {texts[name]!r}")
    return value


def _share(texts: dict[str, str], name: str) -> float:
    text = texts[name].strip()
    try:
        value = fraction(text if text.endswith("%") else float(text))
        if 0 < value < LEAST:
            raise ValueError(f"expected 0 or at least {LEAST:g}, got {text!r}")
        return value
    except ValueError as wrong:
        said = (
            str(wrong) if str(wrong).startswith("expected") else f"expected a fraction such as 0.01 or 1%, got {text!r}"
        )
        raise InputError(f"--{name}: {said}") from None


def _pair(texts: dict[str, str], name: str, shape: str) -> tuple[float, float]:
    first, colon, second = texts[name].partition(":")
    if not colon:
        raise InputError(f"--{name}: expected {shape}, got {texts[name]!r}")
    return _share({name: first}, name), _share({name: second}, name)


def _next(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Return what to type next: the question not yet asked."""
    if "tested" not in texts:
        more = ("blowout odds --tested 2000 --wrong 20", "how sure an error rate is that was measured on a test set")
    else:
        more = (f"blowout odds {EXAMPLE} --peak 2", "what an error rate comes to at scale")
    return [more, ("blowout calibration FILE", "whether a model's confidence tells which of its answers are wrong")]
