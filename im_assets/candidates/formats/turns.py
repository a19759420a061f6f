"""messages, sharegpt: conversations, all their turns.

Turns are text. Whatever else a row holds (images, calls of tools, turns that nothing answers) is
counted by its kind. Consecutive turns of one role are joined; the turns of tools are context.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from im_assets.candidates.format_registry import data_format
from im_assets.candidates.rows import RowError, checked_text, listed
from im_resources.turns import Role, Turn

ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "ipython"), "tool"),
}
TEXT_PARTS = {"text", "input_text", "output_text"}
# What a turn, and a row, may hold beside its text.
BESIDE = ("tool_calls", "function_call", "reasoning_content", "thinking", "audio", "images")
BESIDE_TURNS = ("tools", "images", "videos", "audios")
SHAREGPT: dict[Role, str] = {"system": "system", "user": "human", "assistant": "gpt",
                             "tool": "observation"}  # fmt: skip


def write_messages(turns: Sequence[Turn]) -> dict[str, Any]:
    """A conversation as a row of this shape."""
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write_sharegpt(turns: Sequence[Turn]) -> dict[str, Any]:
    """A conversation as a row of this shape."""
    return {"conversations": [{"from": SHAREGPT[role], "value": text} for role, text in turns]}


@data_format(
    "messages",
    columns={"instruction": "messages"},
    optional=BESIDE_TURNS,
    write=write_messages,
)
def messages(row: dict[str, Any], needs_output: bool) -> dict[str, Any]:
    """Turns with role and content, as chat templates take them."""
    return conversation(row, "messages", "role", "content", needs_output)


@data_format(
    "sharegpt",
    columns={"instruction": "conversations"},
    optional=BESIDE_TURNS,
    write=write_sharegpt,
)
def sharegpt(row: dict[str, Any], needs_output: bool) -> dict[str, Any]:
    """Turns with from and value, as in ShareGPT."""
    return conversation(row, "conversations", "from", "value", needs_output)


def conversation(
    row: dict[str, Any], column: str, role: str, content: str, needs_output: bool
) -> dict[str, Any]:
    """The last exchange as instruction, input (what tools said) and output, and all turns.

    Without ``needs_output`` the conversation ends with what the reference outputs answer. What
    stands before the first user turn, or after the last reply, is no part of it.

    Raises RowError when ``column`` holds no turns, no user's, no reply, or an unknown role.
    """
    given = listed(row, column)
    if not all(isinstance(turn, dict) for turn in given):
        raise RowError(f"field {column!r} is not a list of turns with {role!r} and {content!r}")
    left_out = Counter(kind for kind in BESIDE_TURNS if row.get(kind))
    turns: list[Turn] = []
    for number, turn in enumerate(given, start=1):
        who = _role(turn.get(role), column, number)
        left_out.update(kind for kind in BESIDE if turn.get(kind))
        text = _text(turn, who, f"{column}.{content}", content, left_out)
        if text is not None:
            turns.append(Turn(who, text))
    turns = _from_the_first_user(turns, left_out)
    if not turns:
        found = [turn.get(role) for turn in given[:10]]
        raise RowError(f"field {column!r} has no user turn (roles found: {found})")
    output: dict[str, Any] = {}
    end = _end(turns, needs_output, left_out)
    if needs_output:
        if not end:
            raise RowError(f"field {column!r} has no reply to a user turn")
        end -= 1
        output = {"output": turns[end].content}
    return _last_exchange(turns[:end]) | output | {"not_text": dict(left_out)}


def _role(name: Any, column: str, number: int) -> Role:
    known = ROLES.get(name.lower()) if isinstance(name, str) else None
    if known is None:
        raise RowError(
            f"turn {number} of field {column!r} has the role {str(name)[:40]!r}; known: "
            f"{', '.join(ROLES)}"
        )
    return known


def _text(
    turn: dict[str, Any], who: Role, place: str, content: str, left_out: Counter[str]
) -> str | None:
    """A turn's text; None for a turn that is nothing without what is no text, or is context."""
    value = turn.get(content)
    if isinstance(value, list):
        texts, others = [], Counter[str]()
        for part in value:
            inner = part.get("text") if isinstance(part, dict) else part
            kind = part.get("type") if isinstance(part, dict) else "text"
            if kind in TEXT_PARTS:
                texts.append(checked_text(inner, place))
            else:
                others[str(kind)[:40]] += 1
        left_out.update(others)
        if others and not texts and who in ("user", "assistant"):
            raise RowError(f"field {place!r} is not text but {', '.join(sorted(others))}")
        value = "\n".join(texts)
    calls = who == "assistant" and any(turn.get(kind) for kind in BESIDE)
    if not value and (calls or who in ("system", "tool")):
        return None
    return checked_text(value, place)


def _from_the_first_user(turns: list[Turn], left_out: Counter[str]) -> list[Turn]:
    """The turns with neighbours of one role joined, without replies to nothing at the start."""
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return []
    system = [turn for turn in turns[:first] if turn.role == "system"]
    if lost := first - len(system):
        left_out["turn before the first user turn"] += lost
    joined: list[Turn] = []
    for turn in [*system, *turns[first:]]:
        if joined and joined[-1].role == turn.role:
            joined[-1] = Turn(turn.role, f"{joined[-1].content}\n\n{turn.content}")
        else:
            joined.append(turn)
    return joined


def _end(turns: list[Turn], needs_output: bool, left_out: Counter[str]) -> int:
    """How many turns count: up to the last reply, or up to the last that a reply would follow."""
    if needs_output:
        roles = [turn.role for turn in turns]
        end = len(roles) - roles[::-1].index("assistant") if "assistant" in roles else 0
        kind = "turn after the last reply"
    else:
        end = len(turns) - (turns[-1].role == "assistant")
        kind = "reply beside the reference outputs"
    if end and end < len(turns):
        left_out[kind] += len(turns) - end
    return end


def _last_exchange(turns: list[Turn]) -> dict[str, Any]:
    """Of what a response answers: the last user turn, what tools said after it, and all of it."""
    last = max(i for i, turn in enumerate(turns) if turn.role == "user")
    said = [turn.content for turn in turns[last:] if turn.role == "tool"]
    alone = len(turns) == 1
    return {
        "instruction": turns[last].content,
        "input": "\n\n".join(said),
        "turns": None if alone else turns,
    }
