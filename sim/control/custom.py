"""Control processes of the user's own: a generator function, found by the name that the scenario gives it.

A file is run afresh for every world, so that nothing it remembers goes from one seed to the next.
"""

import inspect
from collections.abc import Callable
from typing import cast

import simpy

from sim import code as own
from sim.control.stage import Process, Stage
from sim.errors import BlowoutError, InputError, RunError
from sim.scenario.control import Custom
from sim.words import show


def custom(stage: Stage, one: Custom) -> Process:
    """Return the user's process, which is given the world.

    Raises:
        InputError: there is no such module or function, or it is no generator function.
    """
    return _watched(stage, find(one.python)(stage), one.python)


def find(code: str) -> Callable[[Stage], Process]:
    """Return the generator function that *code* (``my_module:my_process`` or ``path/my_module.py:my_process``) names.

    Raises:
        InputError: one sentence.
    """
    function, found = own.find(code)
    if not inspect.isgeneratorfunction(found):
        raise InputError(f"expected a generator function, def {function}(world) with a yield in it, got something else")
    if (count := len(inspect.signature(found).parameters)) != 1:
        raise InputError(f"expected {function} to take one argument, the world, got {count}")
    return cast(Callable[[Stage], Process], found)


def _watched(stage: Stage, process: Process, code: str) -> Process:
    """Run *process* and tell what goes wrong in it in one sentence, with the time.

    Raises:
        RunError: it failed, or yielded what cannot be waited for.
    """
    step, sent = process.send, None
    while True:
        try:
            event = step(sent)
        except StopIteration:
            return
        except BlowoutError:
            raise
        except Exception as error:
            raise RunError(f"{code}: failed at t = {stage.now:g} s: {type(error).__name__}: {error}") from error
        if not isinstance(event, simpy.Event):
            said = f"expected to yield an event such as world.timeout(10), got {show(event)}"
            raise RunError(f"{code}: {said} at t = {stage.now:g} s")
        try:
            step, sent = process.send, (yield event)
        except Exception as error:  # an event that failed, or an interrupt: the process may know what to do
            step, sent = process.throw, error
