"""What a failed call of the ``e2b`` SDK means to the operator."""

import json
import re
from typing import Final

import httpx
from connectrpc.errors import ConnectError

from capibara_operator.adapters.e2b_sdk import Answer, e2b
from capibara_operator.ports.sandboxes import Fault, SandboxError

MAX_MESSAGE_CHARS: Final = 400
_CAPACITY: Final = re.compile(
    r"maximum number of concurrent|concurren\w+ (sandbox|limit)", re.IGNORECASE
)
_NO_TEMPLATE: Final = re.compile(r"template.*(not found|does not exist)", re.IGNORECASE | re.DOTALL)
_FAULTS: Final = {
    401: Fault.UNAUTHENTICATED,
    403: Fault.UNAUTHENTICATED,
    404: Fault.NOT_FOUND,
    408: Fault.UNREACHABLE,
    409: Fault.CONFLICT,
    422: Fault.CONFLICT,
}
_ADVICE: Final = {
    Fault.UNREACHABLE: "The call is repeated; check that the provider runs and its URLs are right.",
    Fault.UNAUTHENTICATED: "Check the API key in the Secret that credentialsSecretRef names.",
    Fault.THROTTLED: "The call is repeated when the provider allows it.",
    Fault.CAPACITY: "The call is repeated when a sandbox has ended; raise the account's limit or "
    "lower spec.limits.maxConcurrentSandboxes.",
    Fault.NOT_FOUND: "It was never there, has ended, or belongs to another account.",
    Fault.CONFLICT: "An earlier request with the same idempotency key is looked up and adopted.",
    Fault.INVALID: "The same request cannot succeed: change what it asks for.",
}


def to_sandbox_error(
    error: Exception, operation: str, answer: Answer, secrets: tuple[str, ...]
) -> SandboxError:
    """The operator's error for an exception of the SDK or of a library below it."""
    text = scrub(_text(error), secrets)
    status = _status(error, answer)
    fault = _fault(error, status, text)
    message = f"The provider failed to {operation} ({status or type(error).__name__}): {text}. "
    retry_after = answer.retry_after if status == answer.status else None
    return SandboxError(fault, message + _ADVICE[fault], status, retry_after)


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """``text`` on one line, bounded, and without any of ``secrets``."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return " ".join(text.split())[:MAX_MESSAGE_CHARS].rstrip(" .")


def _text(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "the answer is not the JSON that the E2B API promises"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _status(error: Exception, answer: Answer) -> int:
    """The HTTP status behind an exception, 0 where none was received."""
    if isinstance(error, e2b.AuthenticationException):
        return 401
    if isinstance(error, e2b.NotFoundException | e2b.SandboxNotRunningException):
        return 404
    if isinstance(error, e2b.InvalidArgumentException | e2b.TemplateException):
        return 400
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status
    # A body that could not be read still had a status.
    return answer.status if isinstance(error, ValueError) and answer.status >= 400 else 0


def _fault(error: Exception, status: int, text: str) -> Fault:
    if isinstance(error, e2b.TimeoutException | httpx.HTTPError | ConnectError | OSError):
        gone = isinstance(error, e2b.SandboxNotRunningException)
        return Fault.NOT_FOUND if gone else Fault.UNREACHABLE
    if isinstance(error, e2b.NotEnoughSpaceException):
        return Fault.INVALID
    if status == 429:
        return Fault.CAPACITY if _CAPACITY.search(text) else Fault.THROTTLED
    if status == 400 and _NO_TEMPLATE.search(text):
        return Fault.NOT_FOUND
    default = Fault.INVALID if 400 <= status < 500 else Fault.UNREACHABLE
    return _FAULTS.get(status, default)
