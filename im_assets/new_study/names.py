"""What columns are called, in several languages: which one holds which field is guessed by name."""

import re
from collections.abc import Collection

# In the order in which they are looked for: the first that is there is taken.
NAMES: dict[str, tuple[str, ...]] = {
    "instruction": (
        "instruction", "prompt", "question", "query", "request", "problem", "user", "human",
        "input", "subject", "title", "q", "task",
        "frage", "anweisung", "aufgabe", "betreff", "pregunta", "instrucción", "consigne",
        "domanda", "pergunta", "вопрос", "инструкция", "指令", "问题", "提问", "問題", "質問",
        "指示", "질문", "지시",
    ),
    "output": (
        "output", "response", "answer", "completion", "reply", "solution", "assistant", "target",
        "chosen", "a",
        "antwort", "lösung", "respuesta", "réponse", "risposta", "resposta", "ответ", "输出",
        "回答", "答案", "回复", "応答", "出力", "답변", "응답",
    ),
    "input": (
        "input", "context", "body", "passage", "description", "details",
        "eingabe", "kontext", "contexto", "contexte", "контекст", "输入", "上下文", "入力", "文脈",
        "입력",
    ),
    "category": (
        "category", "topic", "type", "tag", "label", "intent",
        "kategorie", "thema", "categoría", "catégorie", "категория", "类别", "分类", "カテゴリ",
        "분류",
    ),
    # The row's own id, where the column is not called so anyway.
    "id": (
        "uuid", "guid", "uid", "row_id", "example_id", "record_id", "sample_id", "task_id",
        "question_id", "qid", "message_id", "conversation_id", "ticket_id", "ticket_nr", "nr",
        "nummer", "编号",
    ),
}  # fmt: skip


def guess(columns: Collection[str], fields: Collection[str] = tuple(NAMES)) -> dict[str, str]:
    """The column that each field is likely in; of one that no name fits, nothing. No column is
    given twice."""
    known = {_plain(column): column for column in reversed(list(columns))}
    found: dict[str, str] = {}
    for field in fields:
        for name in map(_plain, NAMES[field]):
            if name in known:
                found[field] = known.pop(name)
                break
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
