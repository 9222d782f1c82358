"""Kinds of users: whom a request belongs to, how long it is, where it goes and whether its answer is wrong."""

from collections.abc import Mapping

import numpy as np

from sim.draws import Luck
from sim.errors import ScenarioError
from sim.scenario import Cohort, Dist, Scenario
from sim.words import not_among
from sim.workload import prefixes
from sim.workload.fitted import FITS
from sim.workload.lengths import MAX_TOKENS, Empirical, Fixed, Gamma, Geometric, Lengths, Lognormal, Table


def lengths(spec: Dist, field: str) -> Lengths:
    """Return the distribution that the scenario's *field* describes.

    Raises:
        ScenarioError: a named distribution that does not ship.
    """
    if isinstance(spec, int):
        return Fixed(spec)
    kind, what = spec.choice
    if kind == "named":
        return _named(what, field)
    if kind == "exponential":
        return Geometric(what.mean)
    if kind == "empirical":
        return Empirical(tuple(what.values), None if what.weights is None else tuple(what.weights))
    most = MAX_TOKENS if what.max is None else what.max
    if kind == "lognormal":
        return Lognormal(what.median, what.sigma, what.min, most)
    return Gamma(what.mean, what.cv, what.min, most)


def _named(name: str, field: str) -> Table:
    if name not in FITS:
        raise ScenarioError(f"{field}: {not_among(name, 'distribution', FITS)}")
    return FITS[name].table()


class CohortTable:
    """The cohorts of a scenario as columns, in the order of the file, and what they draw.

    Streams: ``cohorts`` (which), ``lengths`` (prompt and answer), ``errors`` (wrong or not), ``prefixes``
    (which of a cohort's shared prefixes). Each group is a root of the tree ``prefixes`` (`sim.records.PREFIX`),
    numbered on from those of the cohort before it. A conversation keeps its cohort and its prefix.
    """

    def __init__(self, scenario: Scenario, luck: Luck) -> None:
        """Raise ScenarioError when a length names a distribution that does not ship."""
        cohorts = scenario.workload.cohorts
        pools = list(scenario.fleet.pools)
        self._luck = luck
        self.names = tuple(cohorts)
        self.share = np.array([cohort.share for cohort in cohorts.values()])
        self.pool = np.array([0 if c.pool is None else pools.index(c.pool) for c in cohorts.values()], np.int16)
        self.level = np.array([cohort.priority for cohort in cohorts.values()], np.int8)
        self.error = np.array([cohort.error for cohort in cohorts.values()])
        self.groups = np.array([0 if c.prefix is None else c.prefix.groups for c in cohorts.values()], np.int64)
        tokens = np.array([0 if c.prefix is None else c.prefix.tokens for c in cohorts.values()], np.int32)
        self.prefixes = prefixes.roots(self.groups, tokens)
        self._first_group = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.groups)])
        self._until = np.cumsum(self.share)[:-1]
        self.prompt, self.output = _all_lengths(cohorts)

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that can be drawn, tokens."""
        return max((one.largest for one in self.prompt if one is not None), default=1)

    @property
    def max_output_tokens(self) -> int:
        """The longest answer that can be drawn, tokens."""
        return max((one.largest for one in self.output if one is not None), default=1)

    def place(self, rows: np.ndarray, names: np.ndarray, given: np.ndarray | None = None) -> None:
        """Fill in cohort, pool, level and prefix of *rows* (REQUEST) by the *names* (uint64) of their users.

        A cohort that is *given* (an index; -1: it is not) is not drawn. The prefix is not fitted to the prompt
        yet: see `sim.workload.prefixes.fit`.
        """
        if len(self.names) == 1:
            rows["pool"], rows["level"] = self.pool[0], self.level[0]
        else:
            cohort = np.searchsorted(self._until, self._luck.one("cohorts", names), "right")
            if given is not None:
                cohort = np.where(given >= 0, given, cohort)
            rows["cohort"], rows["pool"], rows["level"] = cohort, self.pool[cohort], self.level[cohort]
        rows["prefix"] = -1
        if self.groups.any():
            cohort = rows["cohort"]
            group = (self._luck.one("prefixes", names) * self.groups[cohort]).astype(np.int64)
            rows["prefix"] = np.where(self.groups[cohort] > 0, self._first_group[cohort] + group, -1)

    def measure(self, rows: np.ndarray, names: np.ndarray) -> None:
        """Fill in prompt and output tokens of *rows*, whose cohorts are known, by the *names* of their turns."""
        prompt_share, output_share = self._luck.two("lengths", names)
        for index, (prompt, output) in enumerate(zip(self.prompt, self.output)):
            if prompt is None or output is None:
                continue
            if len(self.names) == 1:
                rows["prompt_tokens"], rows["output_tokens"] = prompt.at(prompt_share), output.at(output_share)
                break
            mine = np.flatnonzero(rows["cohort"] == index)
            rows["prompt_tokens"][mine] = prompt.at(prompt_share[mine])
            rows["output_tokens"][mine] = output.at(output_share[mine])

    def judge(self, rows: np.ndarray, names: np.ndarray) -> None:
        """Fill in which answers are wrong; raising ``error`` keeps those that were wrong before."""
        if self.error.any():
            limit = self.error[0] if len(self.names) == 1 else self.error[rows["cohort"]]
            rows["wrong"] = self._luck.one("errors", names) < limit


def _all_lengths(cohorts: Mapping[str, Cohort]) -> tuple[list[Lengths | None], list[Lengths | None]]:
    prompts: list[Lengths | None] = []
    outputs: list[Lengths | None] = []
    for name, cohort in cohorts.items():
        for spec, into, side in ((cohort.prompt_tokens, prompts, "prompt"), (cohort.output_tokens, outputs, "output")):
            into.append(None if spec is None else lengths(spec, f"workload.cohorts.{name}.{side}_tokens"))
    return prompts, outputs
