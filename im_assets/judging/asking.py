"""Asking a judge for many verdicts: several at once, each kept as soon as it is there."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from im_assets.judging.comparing import REMINDER, SYSTEM, Comparison, Letter, read_verdict
from im_assets.judging.verdicts import Verdict
from im_resources.gpu import GpuResource
from im_resources.judge import (
    BadReplyError,
    Endpoint,
    JudgeBudgetError,
    LocalJudge,
    RequestError,
    StudyJudge,
)
from im_resources.study import Study
from im_resources.usage import count
from im_resources.warehouse import Warehouse

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AT_ONCE = 4
# The local judge calls a tie what differs by less, in nats: 0.525 against 0.475.
TIE_MARGIN = 0.1
LOCAL_CHUNK = 16
# The settings that decide who judges; how often and how long it is asked changes no verdict.
JUDGE = (
    "judge.backend",
    "judge.base_url",
    "judge.model",
    "models.base",
    "models.precision",
)


@dataclass(frozen=True)
class Asked:
    """All verdicts, and where they are from."""

    verdicts: dict[Comparison, Verdict]
    cached: int
    failed: int
    requests: int


@contextmanager
def judge_of(study: Study, gpu: GpuResource) -> Iterator[Endpoint | LocalJudge]:
    """The study's judge, closed at the end."""
    assert study.judge is not None
    if study.judge.backend == "local":
        yield StudyJudge(study, gpu)
        return
    endpoint = Endpoint(study.judge)
    try:
        yield endpoint
    finally:
        endpoint.close()


def ask_all(
    comparisons: Sequence[Comparison],
    judge: Endpoint | LocalJudge,
    warehouse: Warehouse,
    on_verdict: Callable[[int], None] | None = None,
) -> Asked:
    """A verdict on every comparison, from the table ``judge_cache`` or from the judge.

    Equal comparisons are asked about once. Only verdicts are cached, no problems, and each as it
    comes: a killed run asks again only for what was under way.

    Args:
        on_verdict: called after each new one with how many there are, cached ones too.

    Raises:
        JudgeBudgetError: the budget is spent; says how far it reached.
        JudgeError: the judge cannot be asked at all.
    """
    keys = {c: c.key(judge.fingerprint) for c in dict.fromkeys(comparisons)}
    verdicts = _cached(warehouse, keys)
    cached, todo = len(verdicts), [c for c in keys if c not in verdicts]
    count(found=cached, computed=len(todo))

    def keep(comparison: Comparison, verdict: Verdict) -> None:
        if verdict.letter is not None:
            row = {"key": keys[comparison], "verdict": verdict.letter, "judge": judge.name}
            warehouse.append("judge_cache", pd.DataFrame([row]), key=["key"])

    new = (
        _ask_endpoint(todo, judge, keep)
        if isinstance(judge, Endpoint)
        else _ask_local(todo, judge, keep)
    )
    try:
        for comparison, verdict in new:
            verdicts[comparison] = verdict
            if on_verdict is not None:
                on_verdict(len(verdicts))
    except JudgeBudgetError as error:
        kept = len(_cached(warehouse, keys))
        raise JudgeBudgetError(
            f"{error}: {kept} of {len(keys)} verdicts are there and are kept; materialize the same "
            "again to go on, or raise judge.max_requests"
        ) from None
    failed = sum(verdict.letter is None for verdict in verdicts.values())
    requests = judge.requests if isinstance(judge, Endpoint) else 0
    return Asked(verdicts, cached, failed, requests)


def _cached(warehouse: Warehouse, keys: dict[Comparison, str]) -> dict[Comparison, Verdict]:
    if not keys or not warehouse.has_table("judge_cache"):
        return {}
    found = warehouse.query("judge_verdicts_of.sql", {"keys": list(keys.values())})
    letters = dict(zip(found["key"], found["verdict"], strict=True))
    return {c: Verdict(letters[key]) for c, key in keys.items() if key in letters}


def _ask_endpoint(
    todo: Sequence[Comparison],
    endpoint: Endpoint,
    keep: Callable[[Comparison, Verdict], None],
) -> Iterator[tuple[Comparison, Verdict]]:
    def one(comparison: Comparison) -> Verdict:
        verdict = verdict_of(comparison, endpoint)
        keep(comparison, verdict)
        return verdict

    return several(todo, one)


def several(todo: Sequence[Item], one: Callable[[Item], Answer]) -> Iterator[tuple[Item, Answer]]:
    """Yield (item, one(item)) as they finish, ``AT_ONCE`` at a time.

    The first exception is raised once what is under way has finished; what waits is not begun.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {pool.submit(one, item): item for item in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def verdict_of(comparison: Comparison, endpoint: Endpoint) -> Verdict:
    """One verdict. A reply without one is answered with a reminder, once."""
    letter: Letter | None
    letter, problem = told_by(
        endpoint, SYSTEM, comparison.prompt(), read_verdict, "verdict", REMINDER
    )
    return Verdict(letter, problem)


def told_by(
    endpoint: Endpoint,
    system: str,
    question: str,
    read: Callable[[str], Answer | None],
    what: str,
    reminder: str,
) -> tuple[Answer | None, str | None]:
    """What is read in the reply to a question, or None and why there is nothing.

    Args:
        read: gives what a whole reply says; None: nothing. It is then asked again, once, with the
            ``reminder``.
        what: is asked for, in a word.

    Raises JudgeError when the endpoint cannot be asked at all, or its budget is spent.
    """
    opening = [("system", system), ("user", question)]
    messages, problem = opening, ""
    for _ in range(2):
        try:
            reply = endpoint.ask(messages)
        except BadReplyError as error:
            problem = str(error)
            continue
        except RequestError as error:
            return None, str(error)
        found = read(reply.text) if reply.complete else None
        if found is not None:
            return found, None
        said = " ".join(reply.text.split())[-80:]
        problem = f"{f'no {what} in' if reply.complete else 'cut off:'} the reply {said!r}"
        messages = [*opening, ("assistant", reply.text[:500] or "-"), ("user", reminder)]
    return None, problem


def _ask_local(
    todo: Sequence[Comparison],
    judge: LocalJudge,
    keep: Callable[[Comparison, Verdict], None],
) -> Iterator[tuple[Comparison, Verdict]]:
    prompts = [f"{SYSTEM}\n\n{c.prompt()}\n\nVerdict:" for c in todo]
    for part, logs in in_chunks(todo, prompts, (" A", " B"), judge):
        for comparison, (a, b) in zip(part, logs.tolist(), strict=True):
            verdict = preference(a - b)
            keep(comparison, verdict)
            yield comparison, verdict


def in_chunks(
    todo: Sequence[Item], prompts: Sequence[str], ends: Sequence[str], judge: LocalJudge
) -> Iterator[tuple[Sequence[Item], np.ndarray]]:
    """The items a few at a time, with the log-likelihoods of ``ends`` after their prompts,
    [items, ends], as they come."""
    starts = range(0, len(todo), LOCAL_CHUNK)
    asked = {f"{start}": prompts[start : start + LOCAL_CHUNK] for start in starts}
    for name, logs in judge.each(asked, ends):
        yield todo[int(name) : int(name) + LOCAL_CHUNK], logs


def preference(log_odds: float) -> Verdict:
    """The local judge's verdict from log p(A) − log p(B); NaN: the texts did not fit."""
    if log_odds != log_odds:
        return Verdict(None, "the texts do not fit into the judge's context")
    if abs(log_odds) < TIE_MARGIN:
        return Verdict("tie")
    return Verdict("A" if log_odds > 0 else "B")
