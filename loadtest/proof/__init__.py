"""Proof of the tester itself: a server whose truth is known, what the tester read of it, and by how much it was off."""
