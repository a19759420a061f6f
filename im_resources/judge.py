"""Who judges: a model behind an OpenAI-compatible endpoint, or the study's own base model.

Both are handed finished prompts; what they are asked, and what a reply means, is decided in
``im_assets/judging``.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from im_resources.study import JudgeSettings, Study, fingerprint
from im_resources.texts import one_line
from im_resources.workplace import Workplace

if TYPE_CHECKING:
    from im_resources.gpu import GpuResource
    from im_resources.language_model.loading import LoadedModel

# Room for a sentence of explanation before the verdict.
REPLY_TOKENS = 200
NAME = "local base model"


class JudgeError(RuntimeError):
    """A judge that cannot be asked at all: no key, no such model, nobody there."""


class JudgeBudgetError(JudgeError):
    """The budget of requests is spent."""


class RequestError(RuntimeError):
    """One request failed, after its retries; another one may succeed."""


class BadReplyError(RequestError):
    """What came back is no chat completion."""


@dataclass(frozen=True)
class Reply:
    """What the judge wrote; ``complete`` is False when it was cut at the longest length."""

    text: str
    complete: bool


def judge_fingerprint(settings: JudgeSettings, base: str) -> str:
    """Who judges: an endpoint's model, or the base model, whose fingerprint ``base`` is."""
    if settings.backend == "local":
        return local_fingerprint(base)
    return fingerprint("openai", settings.base_url, settings.model)


def local_fingerprint(base: str) -> str:
    """The base model with this fingerprint as a judge."""
    return fingerprint("local", base)


class Endpoint:
    """A chat model behind an OpenAI-compatible endpoint. Safe to use from several threads.

    ``requests`` counts every HTTP request, retries included; none is sent beyond
    ``settings.max_requests``. The key is in no message that leaves this class, whatever the
    endpoint says about it.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        """Raises JudgeError when the environment has no key for an endpoint that is not local."""
        from openai import DefaultHttpxClient, OpenAI

        assert settings.base_url is not None
        assert settings.model is not None
        self.settings, self.name = settings, settings.model
        self.fingerprint = judge_fingerprint(settings, "")
        self.requests = 0
        self._lock = threading.Lock()
        place = urlsplit(settings.base_url)
        loopback = place.hostname in ("127.0.0.1", "localhost", "::1")
        self.place = f"{place.scheme}://{place.hostname}{f':{place.port}' if place.port else ''}"
        self._key = os.environ.get(settings.key_variable, "").strip()
        if not self._key and not loopback:
            raise JudgeError(
                f"the judge at {self.place} needs a key: set the environment variable "
                f"{settings.key_variable} (or name another one as judge.key_variable)"
            )
        # The client would quote it in its error, and escaped, so that it cannot be found there.
        if not re.fullmatch(r"[!-~]*", self._key):
            raise JudgeError(f"{settings.key_variable} holds no key: it has blanks or odd letters")
        self._client = OpenAI(
            api_key=self._key or "none",  # a local server asks for none, the client for some text
            base_url=settings.base_url,
            timeout=settings.timeout,
            max_retries=settings.retries,
            # A proxy, which the environment may name, cannot reach this machine's own ports.
            http_client=DefaultHttpxClient(
                event_hooks={"request": [self._count]}, trust_env=not loopback
            ),
        )

    def ask(self, messages: Sequence[tuple[str, str]]) -> Reply:
        """The reply to a conversation of (role, text), at temperature 0.

        The client retries a lost connection, a timeout, and the statuses 408, 409, 429 and 5xx,
        with exponential backoff or after the time that the endpoint names.

        Raises:
            RequestError: this request failed, retries included; BadReplyError: its reply is none.
            JudgeBudgetError: the budget is spent.
            JudgeError: nobody answers there, or the endpoint refuses key or model.
        """
        import openai

        conversation: Any = [{"role": role, "content": text} for role, text in messages]
        try:
            completion = self._client.chat.completions.create(
                model=self.name, messages=conversation, temperature=0, max_tokens=REPLY_TOKENS
            )
            choice = completion.choices[0]
            text = choice.message.content
        except openai.APITimeoutError:
            raise RequestError(f"no reply within {self.settings.timeout:g} s") from None
        except openai.APIConnectionError as error:
            why = self._safe(str(error.__cause__ or error))
            raise JudgeError(f"cannot reach the judge at {self.place}: {why}") from None
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise JudgeError(
                f"the judge at {self.place} refuses the key in {self.settings.key_variable} or "
                f"the model {self.name!r}: {self._safe(error.message)}"
            ) from None
        except openai.APIStatusError as error:
            # Not every server words its errors as OpenAI does, and the client quotes only those.
            said = f" - {error.response.text}" if " - " not in error.message else ""
            raise RequestError(self._safe(error.message + said)) from None
        # What the client makes of a reply that is no completion: a text, None, missing fields.
        except (openai.APIError, ValueError, AttributeError, TypeError, IndexError) as error:
            kind = type(error).__name__
            raise BadReplyError(f"no chat completion in the reply ({kind})") from None
        if not isinstance(text, str):
            raise BadReplyError("no text in the reply")
        return Reply(self._scrubbed(text), choice.finish_reason != "length")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _count(self, request: object) -> None:
        with self._lock:
            if self.requests >= self.settings.max_requests:
                raise JudgeBudgetError(
                    f"the judge's budget of {self.settings.max_requests} requests is spent"
                )
            self.requests += 1

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _safe(self, text: str) -> str:
        """What the endpoint or the client says, as one short line without the key."""
        return one_line(self._scrubbed(text), 200)


class LocalJudge:
    """The study's base model, asked which of some continuations is likelier.

    It shows the mechanism. A small model's preference is mostly one for a position, and no evidence
    about the answers.
    """

    def __init__(self, base: "LoadedModel", tokens_per_batch: int) -> None:
        self.base, self.tokens_per_batch = base, tokens_per_batch
        self.name = NAME
        self.fingerprint = local_fingerprint(base.fingerprint)

    def each(
        self, prompts: Mapping[str, Sequence[str]], ends: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """``log_likelihoods`` of several lists of prompts, each as it is there."""
        for name, some in prompts.items():
            yield name, self.log_likelihoods(some, ends)

    def log_odds(self, prompts: Sequence[str], first: str, second: str) -> np.ndarray:
        """log p(first | prompt) − log p(second | prompt), nats, one for each prompt.

        NaN where a prompt does not fit into the model's context.
        """
        found = self.log_likelihoods(prompts, (first, second))
        return np.asarray(found[:, 0] - found[:, 1])

    def log_likelihoods(self, prompts: Sequence[str], ends: Sequence[str]) -> np.ndarray:
        """log p(end | prompt), nats, [prompts, ends].

        NaN where a prompt does not fit into the model's context.
        """
        from im_resources.language_model.losses import output_losses
        from im_resources.language_model.prompts import Encoded

        tokenizer, model = self.base.tokenizer, self.base.model
        tails = [tuple(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in ends]
        ids = [tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts]
        longest = model.config.max_position_embeddings - max(map(len, tails))
        fitting = [i for i, prompt in enumerate(ids) if len(prompt) <= longest]
        found = np.full((len(prompts), len(ends)), np.nan)
        if fitting:
            items = [Encoded(ids[i], tuple(tails)) for i in fitting]
            losses = output_losses(model, items, self.tokens_per_batch)
            found[fitting] = -losses.nll.reshape(-1, len(ends))
        return found


class StudyJudge(LocalJudge):
    """The study's base model as a judge, wherever models run; ``each`` alone can be asked."""

    def __init__(self, study: Study, gpu: "GpuResource") -> None:
        self.study, self.gpu = study, gpu
        self.name = NAME
        self.fingerprint = local_fingerprint(gpu.base_fingerprint(study))

    def each(
        self, prompts: Mapping[str, Sequence[str]], ends: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """``log_likelihoods`` of several lists of prompts, each as it is there."""
        here = Workplace(self.study, self.gpu)
        return self.gpu.run(likelihoods, prompts, here, ends=list(ends))


def likelihoods(
    items: Mapping[str, Sequence[str]], here: Workplace, ends: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """A task: log p(end | prompt) under the base model, [prompts, ends], of each list of prompts.

    NaN where a prompt does not fit into the model's context.
    """
    base = here.gpu.base_model(here.study)
    yield from LocalJudge(base, here.study.evaluation.tokens_per_batch).each(items, ends)
