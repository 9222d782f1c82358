"""Python of the user's own, found by the name that a scenario gives it: ``my_module:my_function``.

A file is run afresh each time, so that nothing it remembers goes from one seed to the next.
"""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sim.errors import InputError
from sim.words import did_you_mean, show


def find(code: str) -> tuple[str, Any]:
    """Return the last name in *code* (``my_module:my_name`` or ``path/my_module.py:my_name``) and what it names.

    Raises:
        InputError: there is no such module, it cannot be imported, or it has no such name.
    """
    name, _, inside = code.rpartition(":")
    module = _module(name)
    found = getattr(module, inside, None)
    if found is None:
        near = did_you_mean(inside, [known for known, value in vars(module).items() if inspect.isfunction(value)])
        raise InputError(f"expected a function {show(inside)} in {name}, which has none{near}")
    return inside, found


def _module(name: str) -> ModuleType:
    """Return the module *name*; a file's neighbours can be imported by it."""
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        folder = str(Path(name).parent.resolve())
        if folder not in sys.path:
            sys.path.append(folder)
        spec = importlib.util.spec_from_file_location(f"own_{Path(name).stem}", name)
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
