"""results/seed: a page that a reader of the article can follow, its figures, and the numbers as JSON."""

from pathlib import Path

from sim.report import style
from sim.results import write_json
from sim.seed import figures, told
from sim.seed.lab import PLAYED_SEEDS
from sim.seed.table import CLAIMS, PARTS
from sim.seed.verdicts import Found

INSTEAD = {
    "one-bad-replica": (35, "Route by who is busy (two random choices are enough), and watch P99 for each replica."),
    "idle-ratio": (
        31,
        "Hold the rule against the time per token, which depends less on lengths; try it on your own quiet hours.",
    ),
    "blind-rule": (33, "Alert on the error rate, as a burn rate, for each group of users."),
    "false-pages": (29, "Decide what you may spend, then page on how fast it is spent, on two windows."),
    "gate": (47, "Hold back a share that your reviewers can handle. Measure AUROC beside the calibration error."),
    "small-group": (53, "Test each group by itself. Then grade more of the small ones."),
    "judge": (54, "Let the judge choose what people grade, and estimate from their grades."),
    "chains": (13, "Spend on a verifier before you spend on a better model; measure whole tasks."),
    "before-noon": (7, "Staff and alert for the peak. The mean is a number for slides."),
    "lag": (28, "Put what is cheap and early first: schema checks, then graded samples by the hour."),
}
"""By figure: the claim that it belongs to, and what to do instead."""

HEAD = """# One percent wrong, ten million users: 57 claims, played

Tian Pan's article "1% Error Rate, 10 Million Users: The Math of AI Failures at Scale" says: an accuracy means nothing
until you know how many people ask, in what pattern it fails, how soon you notice, and what happens next. Blowout grew
from it. So we took every claim in it, put it in our own words, and measured it: with arithmetic where that is enough,
with samples over ten seeds, and with a simulated fleet whose every engine step is played.

**{counts}.** The main idea holds up well: what surrounds a model decides what its errors do. The alert rules hold up
worst: [what surprised us most](#ten-that-may-surprise-you).

How a verdict is made: each claim is taken apart into checks, one measurement each against what was said. *Right*: all
hold. *Loose*: some do. *Wrong*: none does. *Not simulable*: advice, opinion or forecast. A check holds if its interval
contains the number that was said, or lies inside the range; half inside, it decides nothing. In [ ] are intervals: 95%
over seeds where a fleet was played, 99.9% where samples were drawn. Shown is the first check that does not hold, or the
first.
"""

TWICE = """## By formula, and played

A formula has assumptions; a scenario has queues, time-outs, delays and people. Where both speak of the same thing, the
interval of what was played (99.9% over {seeds}) must contain the formula. Where the scenario has more in it than the
formula, it says what. Several are played shorter than they are shipped.

| claim | number | formula | played | scenario | |
|---|---|---|---|---|---|"""

TAIL = """
## Make it again

```sh
blowout reproduce               # some minutes on two cores; make results does it too
blowout reproduce --fast        # fewer seeds where a fleet is played
```

The same seeds give the same page. All checks with their intervals are in [claims.json](claims.json). Step times are
those of the catalogue and uncalibrated, so believe ratios more than seconds. Your own numbers: `blowout odds`,
`blowout calibration FILE`, `blowout alerts audit --rules YOURS`.
"""


def write(found: dict[int, Found], folder: Path, fast: bool) -> None:
    """Write README.md, claims.json and figures/ into *folder*."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    plates = figures.plates(found)
    for plate in plates:
        style.save(plate, folder / "figures" / f"{plate.name}.png", 120)
    write_json(folder / "claims.json", told.as_json(found, fast))
    (folder / "README.md").write_text(readme(found, plates, fast), encoding="utf-8")


def readme(found: dict[int, Found], plates: list[style.Plate], fast: bool) -> str:
    """Return the page."""
    counts = told.counted(found)
    lines = [HEAD.format(counts=f"{len(found)} of 57 claims measured: {counts}")]
    if fast:
        lines.append("*Made with `--fast`: few seeds where a fleet was played.*\n")
    lines.append("## All of them\n")
    for part, claims in PARTS.items():
        lines += [f"### {part}\n", "| | the article says | verdict | what we found |", "|---|---|---|---|"]
        lines += [_row(claim.number, claim.says, found.get(claim.number)) for claim in claims]
        lines.append("")
    lines += _twice(found, fast)
    lines.append("## Ten that may surprise you\n")
    for plate in plates:
        number, instead = INSTEAD[plate.name]
        lines += [
            f"### {plate.title}\n",
            f"![{plate.title}](figures/{plate.name}.png)\n",
            f"Claim {number}, *{CLAIMS[number].says}*: **{found[number].verdict.value}**. {found[number].why}\n",
            f"Instead: {instead}\n",
        ]
    return "\n".join(lines) + TAIL


def _twice(found: dict[int, Found], fast: bool) -> list[str]:
    rows = [(number, both) for number, one in found.items() for both in one.twice]
    if not rows:
        return []
    lines = [TWICE.format(seeds="one seed, which has none" if fast else f"{PLAYED_SEEDS} seeds")]
    for number, both in rows:
        formula, played, said = told.beside(both)
        link = f"[{both.scenario}](../../scenarios/{both.scenario}.yaml)"
        lines.append(f"| {number} | {both.what} | {formula} | {played} | {link} | {said} |")
    return [*lines, ""]


def _row(number: int, says: str, one: Found | None) -> str:
    if one is None:
        return f"| {number} | {says} | | not measured in this run |"
    head = one.headline
    said = f"**{told.estimate(head)}** {head.what}. " if head else ""
    mark = f"**{one.verdict.value}**" if one.verdict.value in ("wrong", "loose", "not decided") else one.verdict.value
    hangs = f"{told.undecided(one)} ".lstrip()
    return f"| {number} | {says} | {mark} | {said}{hangs}{one.why} |"
