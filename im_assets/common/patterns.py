"""Regular expressions that users write: checked when they are read, and stopped when they run away.

Some take time that doubles with each letter (``(a+)+$``), and the standard library's `re` cannot be
interrupted; `regex` reads the same expressions and takes a time limit.
"""

import regex

TIMEOUT = 2.0  # seconds for one pattern on one text


class PatternError(ValueError):
    """A pattern that takes too long; names it and what would do."""


def pattern_fault(pattern: str) -> str | None:
    """Why the text is no regular expression, or None."""
    try:
        regex.compile(pattern)
    except regex.error as error:
        return str(error)
    return None


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches somewhere in the text. Raises PatternError after TIMEOUT."""
    try:
        return regex.search(pattern, text, timeout=TIMEOUT) is not None
    except TimeoutError as error:
        raise PatternError(
            f"pattern {pattern!r} takes more than {TIMEOUT:g} s on a text of {len(text)} "
            "characters: write it without nested repetitions such as (a+)+"
        ) from error
