"""From what a user already runs to a scenario: vLLM's command line, /metrics pages, a Prometheus become commented YAML.

Nothing is invented in silence: every value says whether it was measured, derived or guessed.
"""

from sim.init.service import describe

__all__ = ["describe"]
