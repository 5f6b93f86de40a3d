"""Chance that does not depend on the order of calls: each draw is a hash of what it is for."""

import hashlib


class Draws:
    """Uniform draws for one scope, such as one intent; equal names give equal draws.

    Shoppers use common random numbers: the same shopper with the same intent decides the same
    about an item whichever arm shows it, at whatever place, so that a difference between two
    arms is one of the arms and not of luck.
    """

    def __init__(self, seed: int, *scope: str) -> None:
        # Unit separators keep ("a", "bc") and ("ab", "c") apart; ids have no control characters.
        self._prefix = hashlib.blake2b("\x1f".join((str(seed), *scope)).encode(), digest_size=8)

    def integer(self, *name: str) -> int:
        """Draws an integer from 0 to 2**64 - 1."""
        digest = self._prefix.copy()
        digest.update(("\x1e" + "\x1f".join(name)).encode())
        return int.from_bytes(digest.digest(), "big")

    def uniform(self, *name: str) -> float:
        """Draws a number in [0, 1), a multiple of 2**-53."""
        return (self.integer(*name) >> 11) * 2.0**-53
