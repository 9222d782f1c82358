"""Locust with an open loop: `locust -f loadtest/locustfile.py -H URL`, or what `blowout load run` starts.

Locust's users are idle here: each process sends its part of one schedule. Its own statistics get every request at its
end (a stream that breaks is a failure), and TTFT and ITL as rows of their own that do not count as requests.
"""

import json
import logging
import math
import os
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import gevent
from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest import preflight, synthesis
from loadtest.client import Answer
from loadtest.dispatcher import Dispatcher
from loadtest.locust_options import PLAN
from loadtest.plan import Plan
from sim.errors import BlowoutError
from sim.records import Outcome

START_S = 1.5
"""From the order to start to t = 0: every process must have heard it by then."""
DONE = "blowout_done"
log = logging.getLogger("blowout")


class Endpoint(User):
    """Stands for everybody: who asks what and when is in the schedule of each process."""

    @task
    def idle(self) -> None:
        """Do nothing."""
        gevent.sleep(3600)


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--model", default="", help="Model to ask for; empty: the only one there is")
    parser.add_argument("--scenario", default="", help="Scenario file or name; empty: the options below")
    for name, (kind, default, words) in synthesis.OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=words)
    parser.add_argument("--seed", type=int, default=1, help="Seed of all users")
    parser.add_argument("--i-own-this-endpoint", action="store_true", help="Load something that is not this machine")


class _Here:
    """What this process does for the load test."""

    def __init__(self, environment: Environment) -> None:
        self.environment = cast(Any, environment)  # Locust's own types know of no custom options
        self.dispatcher: Dispatcher | None = None
        self.finished: set[int] = set()
        path = os.environ.get(PLAN)
        self.plan = Plan.from_json(Path(path).read_text(encoding="utf-8")) if path else None
        self.is_worker = isinstance(environment.runner, WorkerRunner)
        self.is_master = isinstance(environment.runner, MasterRunner)
        if self.plan and not self.is_master:
            self.dispatcher = self._drawn(self.plan)  # ahead: with a trace it takes its time
        if self.is_master:
            self.environment.runner.register_message(DONE, self._one_is_done)

    def start(self, **_: Any) -> None:
        """Begin: the master, or the only process, says when t = 0 is, and of what; everybody else hears it."""
        options: Any = self.environment.parsed_options
        self.finished.clear()
        if not self.is_worker:
            try:
                plan = self.plan or _planned(self.environment.host or "", options)
            except BlowoutError as error:
                log.error("%s", error)
                self.environment.process_exit_code = error.exit_code
                gevent.spawn(self.environment.runner.quit if options.headless else self.environment.runner.stop)
                options.blowout_plan = ""
                return
            options.blowout_plan = "" if self.plan else json.dumps(asdict(plan))
            options.blowout_t0 = time.time() + START_S
            options.blowout_of = len(self.environment.runner.clients.ready) if self.is_master else 1
        if not self.is_master:
            given = getattr(options, "blowout_plan", "")
            if given or self.dispatcher is None:
                if not given:
                    return
                self.dispatcher = self._drawn(Plan.from_json(given))
            gevent.spawn(self._drive, self.dispatcher, options)

    def stop(self, **_: Any) -> None:
        """Stop sending; what is in flight ends as unfinished, and its rows are written."""
        if self.dispatcher and not math.isnan(self.dispatcher.t0) and not self.dispatcher.done:
            self.dispatcher.stop()
            until_s = time.monotonic() + 3.0
            while not self.dispatcher.done and time.monotonic() < until_s:
                gevent.sleep(0.02)

    def _drawn(self, plan: Plan) -> Dispatcher:
        return Dispatcher(plan, preflight.headers_from_environment(), self._told)

    def _drive(self, dispatcher: Dispatcher, options: Namespace) -> None:
        runner: Any = self.environment.runner
        index = runner.worker_index if self.is_worker else 0
        dispatcher.run(options.blowout_t0, index, options.blowout_of)
        if dispatcher.stopped == "stopped":
            return
        if self.is_worker:
            runner._send_stats()
            runner.send_message(DONE, {"index": index})
        else:
            self._end()

    def _one_is_done(self, msg: Any, **_: Any) -> None:
        self.finished.add(msg.data["index"])
        if len(self.finished) >= self.environment.parsed_options.blowout_of:
            self._end()

    def _end(self) -> None:
        runner: Any = self.environment.runner
        headless = self.environment.parsed_options.headless
        gevent.spawn(runner.quit if headless else runner.stop)

    def _told(self, cohort: str, answer: Answer, ttft_s: float, whole_s: float) -> None:
        failed = None if answer.outcome == Outcome.OK else RuntimeError(f"{answer.error} {answer.said}".strip())
        self.environment.events.request.fire(
            request_type="LLM", name=cohort, response_time=whole_s * 1000, response_length=answer.output_tokens,
            exception=failed, context={},
        )  # fmt: skip
        if not math.isnan(ttft_s):
            self.environment.stats.get("ttft", "LLM").log(ttft_s * 1000, 0)
        if answer.gaps_s:
            self.environment.stats.get("itl", "LLM").log(sum(answer.gaps_s) / len(answer.gaps_s) * 1000, 0)


def _planned(host: str, options: Namespace) -> Plan:
    """Return the plan that Locust's own options make.

    Raises:
        BlowoutError: they make none, or the endpoint does not answer as it should.
    """
    from sim.scenario import dump, load

    given = {name: getattr(options, name) for name in synthesis.OPTIONS}
    scenario = load(options.scenario) if options.scenario else synthesis.scenario(**given, seed=options.seed)
    preflight.allowed(host, options.i_own_this_endpoint)
    return preflight.planned(scenario, dump(scenario), options.seed, host, options.model or None).plan


@events.init.add_listener
def _init(environment: Environment, **_: Any) -> None:
    hooks: Any = environment.events
    environment.process_exit_code = 0  # a request that failed is a finding, not a failure of the test
    here = _Here(environment)
    hooks.test_start.add_listener(here.start)
    hooks.test_stopping.add_listener(here.stop)
    hooks.quitting.add_listener(here.stop)
