"""Where the truth about a past comes from: the options of the commands that hold rules against incidents."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.alerts.pasts import Chosen
from sim.errors import InputError
from sim.units import duration_s, fraction

if TYPE_CHECKING:
    from sim.alerts.past import Past
    from sim.alerts.rulefile import Group
    from sim.alerts.truth import Truth, Worth

INCIDENTS = click.option("--incidents", type=click.Path(path_type=Path), metavar="FILE",
                         help="Incidents in CSV, YAML or JSON: start, end, severity, id.")  # fmt: skip
SLI = click.option("--sli", metavar="EXPR", help="PromQL for the share of bad requests; needs --objective.")
OBJECTIVE = click.option("--objective", metavar="SHARE", help="Share of good requests that was promised, as 99.5%.")
GAP = click.option("--gap", default="10m", show_default=True, help="Bad stretches less than this apart are one.")
PAGE_BURN = click.option("--page-burn", default="2%", show_default=True,
                         help="Share of the error budget that is worth a page.")  # fmt: skip
TICKET_BURN = click.option("--ticket-burn", default="0.5%", show_default=True,
                           help="Share that is worth a ticket; less is no incident.")  # fmt: skip
TRUTH = (INCIDENTS, SLI, OBJECTIVE, GAP, PAGE_BURN, TICKET_BURN)
EARLY = click.option("--early", default="15m", show_default=True, help="A page so long before an incident is true.")
GRACE = click.option("--grace", default="15m", show_default=True, help="A page so long after an incident is true.")
WINDOW = (EARLY, GRACE)


@dataclass(frozen=True)
class Source:
    """Where the truth comes from, as options say: a file, an expression, or else what a run counted."""

    incidents: Path | None
    sli: str | None
    objective: str | None
    gap: str
    page_burn: str
    ticket_burn: str

    def finder(self, chosen: Chosen, groups: "list[Group]", dialect: str) -> "Callable[[Past], Truth]":
        """Return what finds the incidents of a past of those *chosen*, with the faults that were on.

        A server is asked at once for what that takes and what the rules in *groups* read.

        Raises:
            InputError: options that contradict each other, a file or an expression that is wrong, or no option where
                only an option can say what happened.
        """
        from sim.alerts import sli, users

        find = self._finder(dialect)
        if chosen.is_live and self.incidents is None and self.sli is None:
            raise InputError(
                "--from: a Prometheus does not say when users suffered; give --incidents FILE, or --sli with "
                "--objective"
            )
        also = [] if self.sli is None else [sli.expression(self.sli)]

        def found(past: "Past") -> "Truth":
            if chosen.is_live:
                past.read(groups, also)
            return users.caused(past, find(past))

        return found

    def _finder(self, dialect: str) -> "Callable[[Past], Truth]":
        from sim.alerts import incidents, sli, users
        from sim.alerts.promql.vectors import Dialect

        worth = self._worth()
        if self.incidents is not None and self.sli is not None:
            raise InputError("--incidents and --sli: expected one of them, for there is one truth")
        if (self.sli is None) != (self.objective is None):
            missing = "--sli" if self.sli is None else "--objective"
            raise InputError(f"{missing}: missing, expected --sli EXPR and --objective SHARE together")
        if self.incidents is not None:
            path, listed = self.incidents, incidents.read(self.incidents)
            return lambda past: incidents.truth(past, path, listed, users.warmup_ms(past))
        if self.sli is None or self.objective is None:
            return lambda past: users.truth(past, worth)
        asked, objective = sli.expression(self.sli), option("--objective", fraction, self.objective)
        if not 0 < objective < 1:
            raise InputError(f"--objective: expected a share between 0 and 1 such as 99.5%, got {self.objective}")
        return lambda past: sli.truth(past, asked, objective, worth, Dialect(dialect), users.warmup_ms(past))

    def _worth(self) -> "Worth":
        from sim.alerts.truth import Worth

        page = option("--page-burn", fraction, self.page_burn)
        ticket = option("--ticket-burn", fraction, self.ticket_burn)
        if not 0 < ticket <= page:
            raise InputError(f"--ticket-burn: expected above 0 and at most --page-burn ({self.page_burn}), "
                             f"got {self.ticket_burn}")  # fmt: skip
        return Worth(page, ticket, option_ms("--gap", self.gap))


def said_again(given: dict[str, Any], *more: str) -> str:
    """Return the options of *given* that say what the truth is, and those called one of *more*, as they are typed."""
    named = ("incidents", "sli", "objective", *more)
    return "".join(f" --{key} {shlex.quote(str(given[key]))}" for key in named if given[key] is not None)


def option(name: str, read: Callable[[object], Any], text: str) -> Any:
    """Return what *read* makes of the *text* of option *name*.

    Raises:
        InputError: it is not that; names the option.
    """
    try:
        return read(text)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None


def option_ms(name: str, text: str) -> int:
    """Return the duration that option *name* is, in milliseconds.

    Raises:
        InputError: it is none; names the option.
    """
    return round(option(name, duration_s, text) * 1000)
