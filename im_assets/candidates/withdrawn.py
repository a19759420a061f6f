"""What was withdrawn by its id: rows that no pool may hold, whatever its files say.

The list is a file that the profile names, so that a study made from scratch leaves them out too.
"""

import re

from im_assets.candidates.files import SourceError
from im_resources.study import Study, resolve_path


def withdrawn_ids(study: Study) -> frozenset[str]:
    """The example_ids in the file that ``data.withdrawn`` names: one a line, ``#`` begins a
    comment.

    Raises SourceError when the file is not there, or a line holds something else.
    """
    settings = study.data.withdrawn
    if settings is None:
        return frozenset()
    path = resolve_path(settings.path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"data.withdrawn: {path} cannot be read: {error}") from error
    found = set()
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip()
        if word and not re.fullmatch("[0-9a-f]{16}", word):
            raise SourceError(
                f"data.withdrawn: {path} line {number}: {word[:80]!r} is no example_id (16 digits "
                "of 0-9 and a-f, as in the column of that name)"
            )
        found.add(word)
    return frozenset(found - {""})
