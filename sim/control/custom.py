"""Control processes of the user's own: a generator function, found by the name that the scenario gives it.

A file is run afresh for every world, so that nothing it remembers goes from one seed to the next.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import simpy

from sim.control.stage import Process, Stage
from sim.errors import BlowoutError, InputError, RunError
from sim.scenario.control import Custom
from sim.words import did_you_mean, show


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
    name, _, function = code.rpartition(":")
    module = _module(name)
    found = getattr(module, function, None)
    if found is None:
        near = did_you_mean(function, [known for known, value in vars(module).items() if inspect.isfunction(value)])
        raise InputError(f"expected a function {show(function)} in {name}, which has none{near}")
    if not inspect.isgeneratorfunction(found):
        raise InputError(f"expected a generator function, def {function}(world) with a yield in it, got something else")
    if (count := len(inspect.signature(found).parameters)) != 1:
        raise InputError(f"expected {function} to take one argument, the world, got {count}")
    return found


def _module(name: str) -> ModuleType:
    """Return the module *name*; a file's neighbours can be imported by it."""
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        folder = str(Path(name).parent.resolve())
        if folder not in sys.path:
            sys.path.append(folder)
        spec = importlib.util.spec_from_file_location(f"control_{Path(name).stem}", name)
        if spec is None or spec.loader is None:
            raise ImportError("not a file of Python")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            said = "expected a module beside the scenario, where the command runs or installed"
            raise InputError(f"{said}, but there is no {show(name)}") from None
        raise InputError(f"{name} cannot be imported: {error}") from None
    except Exception as error:
        raise InputError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


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
