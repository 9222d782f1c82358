"""Blowout: how an LLM service fails, before its users know."""

__version__ = "0.1.0"
