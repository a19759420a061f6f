"""messages, sharegpt: chat turns; the first user turn and the reply to it, without the system's."""

from typing import Any

from im_assets.candidates.format_registry import data_format
from im_assets.candidates.rows import RowError, checked_text, listed

USER, ASSISTANT = {"user", "human"}, {"assistant", "gpt", "chatgpt", "bot", "model"}


@data_format("messages", columns={"instruction": "messages"}, optional=())
def messages(row: dict[str, Any], needs_output: bool) -> dict[str, str]:
    """Turns with role and content, as chat templates take them."""
    return first_exchange(row, "messages", "role", "content", needs_output)


@data_format("sharegpt", columns={"instruction": "conversations"}, optional=())
def sharegpt(row: dict[str, Any], needs_output: bool) -> dict[str, str]:
    """Turns with from and value, as in ShareGPT."""
    return first_exchange(row, "conversations", "from", "value", needs_output)


def first_exchange(
    row: dict[str, Any], column: str, role: str, content: str, needs_output: bool
) -> dict[str, str]:
    """The first user turn, and the reply to it where ``needs_output``.

    Raises RowError when ``column`` holds no turns, no user's, or no reply.
    """
    turns = listed(row, column)
    if not all(isinstance(turn, dict) for turn in turns):
        raise RowError(f"field {column!r} is not a list of turns with {role!r} and {content!r}")
    roles = [name.lower() if isinstance(name := turn.get(role), str) else "" for turn in turns]
    first = next((i for i, name in enumerate(roles) if name in USER), None)
    if first is None:
        raise RowError(f"field {column!r} has no user turn (roles found: {roles[:10]})")
    prompt = {"instruction": checked_text(turns[first].get(content), f"{column}.{content}")}
    if not needs_output:
        return prompt
    if first + 1 == len(turns) or roles[first + 1] not in ASSISTANT:
        raise RowError(f"field {column!r} has no reply to the first user turn")
    return prompt | {"output": checked_text(turns[first + 1].get(content), f"{column}.{content}")}
