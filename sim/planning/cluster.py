"""Trials on other machines: Dask's `distributed` plays them, as an executor like any other.

It is an extra (`pip install 'blowout[dask]'`) and imported only here. Workers need Blowout too; nothing else is
shared with them, no file system either: trials go there, numbers come back.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sim import __version__
from sim.errors import EndpointError, InputError
from sim.workers import LOST, cores

if TYPE_CHECKING:
    from distributed import Client

ADDRESS = re.compile(r"(tcp|tls|ws|wss)://[^\s/]+:\d+/?")
PATIENCE_S = 10.0
"""How long a scheduler, and then its first worker, may take to answer."""


@contextmanager
def cluster(scheduler: str | None, workers: int | None = None) -> Iterator[tuple[Executor, int]]:
    """Open the Dask cluster at *scheduler*, and yield an executor that plays on it and how many threads it has.

    Without a *scheduler*, one is started on this machine with *workers* processes, as many as there are cores if left
    out, and stopped at the end; one that was there before is left as it was.

    Raises:
        InputError: Dask is not installed.
        EndpointError: the scheduler does not answer, has no workers, or they have no Blowout or another version of it.
    """
    try:
        import distributed
    except ImportError:
        raise InputError("--executor dask: Dask is not installed; pip install 'blowout[dask]' installs it") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions: `_threads` checks the one that matters
        if scheduler is not None:
            with _client(scheduler) as client:
                yield client.get_executor(pure=False), _threads(client, scheduler)
            return
        with (
            distributed.LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers or cores(), threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as local,
            _client(local) as client,
        ):  # fmt: skip
            yield client.get_executor(pure=False), _threads(client, "this machine")


def lost() -> tuple[type[BaseException], ...]:
    """Return what `cluster`'s executor raises when a worker was killed, or the scheduler is gone."""
    from distributed.scheduler import KilledWorker

    return (KilledWorker, *LOST)


def _client(scheduler: Any) -> "Client":
    import distributed

    if isinstance(scheduler, str) and not ADDRESS.fullmatch(scheduler):
        raise InputError(f"--scheduler {scheduler}: expected an address such as tcp://host:8786")
    try:
        return distributed.Client(scheduler, timeout=PATIENCE_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError):
        raise EndpointError(
            f"--scheduler {scheduler}: no Dask scheduler answered within {PATIENCE_S:g} s; "
            "`dask scheduler` starts one, and prints its address"
        ) from None


def _threads(client: "Client", scheduler: str) -> int:
    """Return how many trials the workers play at once, all of which have this version of Blowout."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE_S)
    except TimeoutError:
        raise EndpointError(
            f"--scheduler {scheduler}: has no workers, and none came within {PATIENCE_S:g} s; "
            f"`dask worker {scheduler} --nthreads 1` starts one"
        ) from None
    versions: Any = client.get_versions(packages=["blowout"])
    for worker, said in versions["workers"].items():
        version = said["packages"].get("blowout")
        if version != __version__:
            has = f"has blowout {version}" if version else "has no blowout"
            raise EndpointError(f"{worker}: this worker {has}; expected {__version__}, as here, with every worker")
    return sum(client.nthreads().values())  # type: ignore[no-untyped-call]
