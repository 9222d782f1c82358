"""How the engine is compiled: cached on disk, once for each function, and without reference counts.

Numba counts references to every array that a function is given, with atomic instructions; over arrays that outlive
every call this is pure cost (measured: 4 of 5 nanoseconds). Kernels allocate nothing, so they do without (`_nrt`).
`inlined` parts become part of their caller, which spares passing a dozen arrays for a few lines of work.
"""

from collections.abc import Callable
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit, types
from numba.core import caching

from sim.engine import cache_folder
from sim.engine.state import attributed

# Where Numba was imported first, it did not see what `sim.engine` told it.
_FOLDER = cache_folder()  # once: hundreds of functions ask
config.CACHE_DIR = str(_FOLDER)  # type: ignore[attr-defined]


class _BySources(caching.UserProvidedCacheLocator):
    """Keeps what was compiled for as long as the sources are the same, wherever and whenever they were checked out.

    Numba's own way goes by the path and the time of each file, so that every fresh checkout would compile again.
    """

    def get_cache_path(self) -> str:
        return str(_FOLDER)

    def get_source_stamp(self) -> str:
        return _FOLDER.name

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_BySources | None":
        return cls(py_func, py_file) if Path(py_file).parent == Path(__file__).parent else None


caching.CacheImpl._locator_classes.insert(0, _BySources)

_compiled = njit(cache=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
inlined = njit(cache=True, error_model="numpy", _nrt=False, inline="always")  # type: ignore[call-overload]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile *function* once, whatever integers kernels call it with.

    Numba would compile it anew for every constant (an outcome, a status) and every width of integer that a caller
    passes, and all that it calls, too: three times the work (measured), for the same machine code.
    """
    dispatcher = _compiled(function)
    if hasattr(dispatcher, "get_call_template"):  # not with the JIT disabled
        choose = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: choose(tuple(map(_widened, args)), kws)
    return dispatcher


def _widened(kind: Any) -> Any:
    kind = getattr(kind, "literal_type", kind)  # of a constant: the type that it is a constant of
    return types.int64 if isinstance(kind, types.Integer) and kind != types.uint64 else kind


def bare(array: np.ndarray) -> Any:
    """Return *array* as a kernel is best handed it: Numba tells a plain array apart sooner than a record array.

    Measured on `sim.engine.play.play` with nothing to do: 47 us with its 21 record arrays, 12 us with plain ones.
    Without the JIT, fields must be attributes.
    """
    if array.dtype.names is None:
        return array
    return attributed(array) if config.DISABLE_JIT else array.view(np.ndarray)  # type: ignore[attr-defined]


class Bare:
    """Many arrays, `bare`: those that are still the arrays of the last call are not wrapped again (8 us for 21)."""

    def __init__(self) -> None:
        self._arrays: tuple[np.ndarray, ...] = ()
        self._handed: tuple[Any, ...] = ()

    def __call__(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """Return *arrays*, each as `bare` returns it."""
        if len(arrays) != len(self._arrays) or not all(map(is_, arrays, self._arrays)):
            self._arrays, self._handed = arrays, tuple(map(bare, arrays))
        return self._handed
