"""The passive compiled fleet: vLLM-like replicas, their clients and their memory.

Importing this room points Numba at a cache folder of its own, keyed by the sources of the engine: Numba's
cache does not notice when a helper in another module has changed.
"""

import hashlib
import os
import platform
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return where the compiled engine is kept: under $BLOWOUT_CACHE, or the user's cache folder."""
    root = os.environ.get("BLOWOUT_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "blowout"
    digest = hashlib.sha256(f"{sys.version}{platform.processor()}{platform.machine()}".encode())
    sources = [
        *Path(__file__).parent.glob("*.py"),
        *(Path(__file__).parents[1] / name for name in ("records.py", "buckets.py")),
    ]
    for source in sorted(sources):
        digest.update(source.read_bytes())
    from importlib.metadata import version

    digest.update(version("numba").encode())
    return base / f"engine-{digest.hexdigest()[:16]}"


def is_compiled() -> bool:
    """Tell whether the whole compiled engine is in the cache."""
    return (cache_folder() / "complete").exists()


os.environ["NUMBA_CACHE_DIR"] = str(cache_folder())
