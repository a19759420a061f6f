"""Posting JSON to a webhook whose address is a secret: it is in no message, log or traceback.

The standard library's client, because the others log the address of what they ask.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

TRIES = 2
PAUSE = 0.5  # seconds before a further try
# Not the message's fault: the same one may go through later.
PASSING = {408, 425, 429}


class WebhookError(RuntimeError):
    """A webhook did not take a message; ``passing``: it may take the same one later."""

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message goes where it was addressed to, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Webhook:
    """One address that JSON is posted to."""

    def __init__(self, url: str, timeout: float) -> None:
        """Args: url: http or https; timeout: seconds that an answer may take.

        Raises WebhookError when it is no such address, without showing it.
        """
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            valid = False
        if not valid:
            raise WebhookError("the webhook's address is not an http(s) URL", passing=False)
        self._url, self._timeout = url, timeout
        self._opener = urllib.request.build_opener(_NoRedirect)

    def post(self, message: Mapping[str, Any]) -> None:
        """Post it, with a second try after a passing failure.

        Raises WebhookError, which says what happened but not where.
        """
        body = json.dumps(message, ensure_ascii=False).encode()
        for left in reversed(range(TRIES)):
            try:
                return self._try(body)
            except WebhookError as error:
                if not error.passing or not left:
                    raise
            time.sleep(PAUSE)
        return None

    def _try(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "instruction-mining"}
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        try:
            # The answer's body says nothing, and is not waited for.
            self._opener.open(request, timeout=self._timeout).close()
        except urllib.error.HTTPError as error:
            error.close()
            passing = error.code in PASSING or error.code >= 500
            raise WebhookError(f"the webhook answered with {error.code}", passing) from None
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            kind = type(reason).__name__ if isinstance(reason, Exception) else "URLError"
            raise WebhookError(f"the webhook cannot be reached ({kind})") from None
        except Exception as error:  # http.client's own: a server that does not speak HTTP
            kind = type(error).__name__
            raise WebhookError(f"the webhook gave no HTTP answer ({kind})") from None
