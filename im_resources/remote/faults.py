"""What goes wrong at a URL: what is tried again, what is told at once, and how.

The libraries already try again what goes wrong for a moment: botocore a server's error four times,
s3fs a broken connection and SlowDown five times, gcsfs both six times
(https://github.com/fsspec/s3fs/blob/main/s3fs/core.py, ``_error_wrapper``). None of them outlasts
a store that is down for a minute. That is done here, for all of them and in one place.
"""

import errno
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from im_resources.deployment.schema import SECRET

Result = TypeVar("Result")

PATIENCE = 300.0  # seconds for which a store may be down, or slow, before a run stops
FIRST_WAIT, LONGEST_WAIT = 0.2, 15.0
# Of a shared folder's server, or as s3fs translates a code that it knows.
_PASSING = {
    errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET,
    errno.ECONNREFUSED, errno.EPIPE, errno.EREMOTEIO, errno.ENETUNREACH, errno.EHOSTUNREACH,
    errno.EHOSTDOWN, errno.ENETDOWN,
}  # fmt: skip
# A class of errors of the network, by the module that it is in, if that was imported at all.
_NETWORK = {
    "botocore.exceptions": ("HTTPClientError", "ConnectionError", "IncompleteReadError"),
    "botocore.parsers": ("ResponseParserError",),
    "aiohttp": ("ClientError",),
    "requests": ("ConnectionError", "Timeout"),
    "http.client": ("HTTPException",),
}
_NO_SECRETS = (
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
    "DefaultCredentialsError", "RefreshError",
)  # fmt: skip
_REFUSED = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken",
    "InvalidClientTokenId", "AuthFailure", "AllAccessDisabled", "AccountProblem", "NotSignedUp",
}  # fmt: skip
# Of a shared folder.
_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or have this user's quota raised",
    errno.EROFS: "mount it for writing",
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.EIO: "check the disk, or the server, that holds it",
}
SECRETS = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")  # however short
CREDENTIALS = (
    "set the credentials where this runs: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
    "AWS_ENDPOINT_URL for another store than Amazon's), or GOOGLE_APPLICATION_CREDENTIALS"
)
log = logging.getLogger(__name__)


class RemoteError(OSError):
    """Files at a URL that cannot be written or read; says which, where, why, and what to do."""


class NotAsSent(Exception):
    """What has arrived at a store is not what was sent there."""


def tried(what: str, action: Callable[[], Result], patience: float) -> Result:
    """The result of ``action``, which is tried again for ``patience`` seconds while what it fails
    with may pass. Of a file that is not there, its FileNotFoundError passes.

    Args:
        what: is being done, with the URL: "read s3://…".

    Raises RemoteError otherwise, in one line.
    """
    started, wait, told = time.monotonic(), FIRST_WAIT, False
    while True:
        try:
            return action()
        except RemoteError:
            raise
        except FileNotFoundError as error:
            if no_bucket(error):
                raise RemoteError(
                    f"cannot {what}: there is no such bucket; create it, or correct `files` in the "
                    "deployment"
                ) from None
            raise
        except Exception as error:
            # Not as its cause: what a library says may hold what the environment does.
            if not passing(error):
                raise RemoteError(f"cannot {what}: {reason(error)}; {remedy(error)}") from None
            took = time.monotonic() - started
            if took + wait > patience:
                raise RemoteError(
                    f"cannot {what}: {reason(error)}, for {took:.0f} s; see whether the store is "
                    "up and reached from here, and run again: what is finished is not lost"
                ) from None
            if not told:
                log.warning("trying again for %.0f s to %s: %s", patience, what, reason(error))
            told = True
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def passing(error: BaseException) -> bool:
    """Whether the same may succeed in a moment: 5xx, too many requests, timeouts, connections."""
    if isinstance(error, PermissionError) or _code(error) in _REFUSED:
        return False
    status = _status(error)
    if status:
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, (TimeoutError, ConnectionError, NotAsSent, *_network())):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def no_bucket(error: BaseException) -> bool:
    """Whether it is the bucket that is not there."""
    return _code(error) == "NoSuchBucket" or "bucket does not exist" in str(error).lower()


def reason(error: BaseException) -> str:
    """What happened, in a few words and without a secret."""
    status, code = _status(error), _code(error)
    said = str(error).strip().splitlines()
    text = said[0] if said else type(error).__name__
    if isinstance(error, OSError) and error.strerror and not code:
        text = error.strerror
    if status and str(status) not in text:
        text = f"the store answers {status}{f' {code}' if code else ''} ({text})"
    return without_secrets(text)


def remedy(error: BaseException) -> str:
    """What to do about an error that will not pass."""
    if isinstance(error, ImportError):
        return "install what the cluster needs: pip install -e .[cluster]"
    if type(error).__name__ in _NO_SECRETS:
        return CREDENTIALS
    number = error.errno if isinstance(error, OSError) else None
    refused = isinstance(error, PermissionError) or str(error).startswith("Forbidden")  # of GCS
    if (refused and not number) or _code(error) in _REFUSED or _status(error) in (401, 403):
        return f"let these credentials read, write, list and delete there, or {CREDENTIALS}"
    return _REMEDIES.get(number or 0, "see what the store's own log says of it")


def without_secrets(text: str) -> str:
    """The text without what addresses and the environment hold of secrets."""
    text = SECRET.sub(lambda found: "://***@" if found[0].startswith("://") else found[0], text)
    text = re.sub(r"(?i)((?:password|secret|token|key)\w*=)[^\s;&,]+", r"\1***", text)
    for name, value in os.environ.items():
        named = value and name in SECRETS
        if named or (len(value) >= 4 and re.search("SECRET|TOKEN|PASSWORD|KEY", name)):
            text = text.replace(value, "***")
    return text


def _response(error: BaseException) -> dict[str, Any]:
    """What S3 answered; s3fs hands it on as the cause of an error of the operating system."""
    for one in (error, error.__cause__):
        found = getattr(one, "response", None)
        if isinstance(found, dict):
            return found
    return {}


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _status(error: BaseException) -> int:
    """Of the answer; 0 without one."""
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status is None:  # gcsfs and aiohttp
        status = getattr(error, "code", None) or getattr(error, "status", None)
    return int(status) if str(status).isdecimal() else 0


def _network() -> tuple[type[BaseException], ...]:
    return tuple(
        getattr(sys.modules[module], name)
        for module, names in _NETWORK.items()
        if module in sys.modules
        for name in names
    )
