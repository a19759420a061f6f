"""The randomness of all draws: SHA-256 of a seed and a name, the same on every machine."""

import hashlib


def uniform(seed: int, name: str) -> float:
    """A uniform random number in (0, 1) that belongs to a seed and a name."""
    return (int(digest(seed, f"weight:{name}")[:13], 16) + 0.5) / 16**13


def digest(seed: int, name: str) -> str:
    """SHA-256 of a seed and a name, in hex: the randomness of all draws."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
