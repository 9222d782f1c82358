"""How much is needed: play many scenarios at once, search the cheapest fleet that keeps its promise, sweep and cost."""
