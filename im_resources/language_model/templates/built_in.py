"""plain, alpaca, chat. The paper does not print its template, so it is a setting."""

from typing import Any

from im_resources.language_model.template_registry import prompt_template


@prompt_template("plain", version=1)
def plain(instruction: str, context: str) -> tuple[str, str]:
    """A question and its answer."""
    return f"Question: {instruction}\n{context + chr(10) if context else ''}Answer:", " "


@prompt_template("alpaca", version=1)
def alpaca(instruction: str, context: str) -> tuple[str, str]:
    """Stanford Alpaca's, https://github.com/tatsu-lab/stanford_alpaca#data-release"""
    head = (
        "Below is an instruction that describes a task"
        + (", paired with an input that provides further context" if context else "")
        + ". Write a response that appropriately completes the request.\n\n"
    )
    given = f"### Input:\n{context}\n\n" if context else ""
    return f"{head}### Instruction:\n{instruction}\n\n{given}### Response:\n", ""


@prompt_template("chat", version=1, special_tokens=False)
def chat(instruction: str, context: str, tokenizer: Any) -> tuple[str, str]:
    """The tokenizer's own chat template; one turn of the user."""
    content = f"{instruction}\n\n{context}" if context else instruction
    turns = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), ""
