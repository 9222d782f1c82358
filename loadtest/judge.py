"""Judges answers in a process of its own, one at a time, for whoever writes to its standard input.

Neither a slow function nor an endless regular expression can then delay a request, and both can be ended. Functions of
the user's own find Python as it is, where Locust has patched sockets, threads and time.
"""

import json
import os
import sys

from loadtest.plan import Plan
from sim.answers import judge_of, judged

READY = b"ready\n"


def main(path: str) -> None:
    """Answer lines ``[check, text, asked]`` with lines ``[verdict, why]``, for the plan in the file at *path*."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a function prints is no verdict
    with open(path, encoding="utf-8") as file:
        scenario = Plan.from_json(file.read()).loaded
    judges = {name: judge_of(check) for name, check in scenario.checks.items()}
    os.write(out, READY)
    for line in sys.stdin:
        name, text, asked = json.loads(line)
        found = judged(judges[name], text, asked)
        os.write(out, json.dumps([found.verdict, found.why]).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
