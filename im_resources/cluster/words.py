"""Resources, nodes and errors in words."""

from collections.abc import Mapping


def of_need(need: Mapping[str, float]) -> str:
    """The resources of a group, as Ray names them."""
    words = [f"{need['CPU']:g} CPU"]
    if need.get("GPU"):
        words.append(f"{need['GPU']:g} GPU")
    if memory := need.get("memory"):
        words.append(f"{memory / 2**30:g} GiB of memory")
    return " and ".join(words)


def in_short(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
