"""A real vLLM on this machine's CPU, with random weights: set up, started, loaded, and held against the engine."""
