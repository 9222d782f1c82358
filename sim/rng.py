"""Named streams of randomness: one a purpose, so that two policies see the same users.

Adding a stream never changes another one, because each is keyed by its name and not by the order
in which it was made (`SeedSequence.spawn` is keyed by order).
"""

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator that *seed* gives to the purpose *name* (for example ``"arrivals"``)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=tuple(name.encode()))))
