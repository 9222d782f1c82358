"""How fast and how true Blowout is, measured: scripts that print tables, never tests."""
