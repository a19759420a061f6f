"""What somebody else wrote, for showing: rows of data, answers of models, replies of servers."""


def one_line(text: str, most: int) -> str:
    """The text as one line of at most ``most`` characters, of which each can be seen.

    What does not print is written as its escape: a terminal would obey ``\\x1b[2J``, and
    ``\\u202e`` turns around what follows it. The signs of HTML and Markdown are for their writers
    (the report's template, `im_assets.common.presentation.markdown`).
    """
    # An escape has up to ten characters, so that no more than these can be seen.
    line = " ".join(text[: 10 * most].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
