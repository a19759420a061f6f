"""What somebody else wrote: rows of data, answers of models, replies of servers."""

import unicodedata

SEPARATOR = "\x1f"  # stands between the texts of an example where it is hashed


def printable(text: str) -> str:
    """``text`` with every character that a terminal could obey written as an escape (``\\x1b``).

    Control characters, line breaks, invisible marks that turn the direction of writing, and lone
    surrogates; letters of every script stay.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, most: int) -> str:
    """The text as one line of at most ``most`` characters, of which each can be seen.

    What does not print is written as its escape (`printable`): a terminal would obey
    ``\\x1b[2J``, and ``\\u202e`` turns around what follows it. The signs of HTML and Markdown are
    for their writers (the report's template, `im_assets.common.presentation.markdown`).
    """
    # An escape has up to ten characters, so that no more than these can be seen.
    line = printable(" ".join(text[: 10 * most].split()))
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def normalize(text: str) -> str:
    """NFC, without outer white space and without the separator that ids rely on."""
    return unicodedata.normalize("NFC", text.replace(SEPARATOR, "")).strip()
