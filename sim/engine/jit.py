"""How the engine is compiled: cached on disk, and without reference counts.

Numba counts references to every array that a function is given, with atomic instructions; over arrays that outlive
every call this is pure cost (measured: 4 of 5 nanoseconds). Kernels allocate nothing, so they do without (`_nrt`).
`inlined` parts become part of their caller, which spares passing a dozen arrays for a few lines of work.
"""

from numba import config, njit

from sim.engine import cache_folder

# Where Numba was imported first, it did not see what `sim.engine` told it.
config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]

kernel = njit(cache=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
inlined = njit(cache=True, error_model="numpy", _nrt=False, inline="always")  # type: ignore[call-overload]
