"""What every question to a judge has in common: texts as data, and an answer on the last line."""

import re
from collections.abc import Iterable


def tagged(parts: Iterable[tuple[str, str]], mark: str) -> list[str]:
    """Each (name, text) between tags of its name.

    Args:
        mark: part of the tags' names. It has to depend on all texts, so that none can close its own
            tag and speak to the judge as if it were the question.
    """
    return [f"<{name}-{mark}>\n{text}\n</{name}-{mark}>" for name, text in parts]


def last_line(reply: str, markup: re.Pattern[str]) -> str:
    """The words of the last line that is more than markup, without it; '' where there is none."""
    lines = (" ".join(markup.sub(" ", line).split()) for line in reversed(reply.splitlines()))
    return next((line for line in lines if line), "")
