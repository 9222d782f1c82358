"""Compile the engine if this machine has not yet: ``python -m sim.engine``."""

from sim.engine.exercise import warm

warm()
