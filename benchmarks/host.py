"""How slow the host was, and when: a level played with the host as it was at each moment."""

import numpy as np

from sim.calibrate.fit import host_speed
from sim.calibrate.steplog import Floats, StepLog


class HostClock:
    """The host's slowness as a change of time: how much *work* (seconds of fitted steps) it had done by when.

    While step i of the log ran, the host did ``work_s[i]`` in ``took_s[i]``; between steps it stood ready at its
    fitted speed. The engine is played in seconds of work with no host in it, and its times are mapped back. So a
    slow moment slows whatever step runs then, in proportion to how much of it falls into that moment: nothing is
    counted twice, and a stall of the host adds its length to a step, not a factor.
    """

    def __init__(self, log: StepLog, work_s: Floats) -> None:
        starts = np.maximum(log.start_s, np.concatenate([[0.0], log.end_s[:-1]]))
        wall = np.column_stack([starts, log.end_s]).ravel()
        idle_s = starts - np.concatenate([[0.0], log.end_s[:-1]])
        done = np.cumsum(np.column_stack([idle_s, work_s]).ravel())
        far = 1e6  # after the log the host is as fitted
        self.wall_s = np.concatenate([[0.0], wall, [wall[-1] + far]])
        self.work_s = np.concatenate([[0.0], done, [done[-1] + far]])

    def to_work(self, wall_s: Floats) -> Floats:
        """Return how much work the host can have done by *wall_s*."""
        return np.interp(wall_s, self.wall_s, self.work_s)

    def to_wall(self, work_s: Floats) -> Floats:
        """Return when the host has done *work_s*."""
        return np.interp(work_s, self.work_s, self.wall_s)


def smoothed(log: StepLog, work_s: Floats, window_s: float) -> Floats:
    """Return work that gives the host one speed in each window of *window_s*: what a coarser log would tell."""
    return log.took_s / host_speed(log.took_s, work_s, (log.end_s / window_s).astype(int))
