"""Text from data and from other processes, made safe to print."""


def printable(text: str) -> str:
    """``text`` with every character that a terminal could obey written as an escape (``\\x1b``).

    Control characters, line breaks, invisible marks that turn the direction of writing, and lone
    surrogates; letters of every script stay.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
