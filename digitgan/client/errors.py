"""What can go wrong between a caller and the gateway: DigitganError and its kinds."""

from dataclasses import dataclass
from typing import Any, Final

import httpx


class DigitganError(Exception):
    """Anything that the client raises for what a gateway did or didn't do."""


class UnreachableError(DigitganError):
    """Nothing answers at the gateway's address, or the connection broke."""


class SlowAnswerError(DigitganError):
    """The gateway didn't answer within the client's time."""


class AnswerError(DigitganError):
    """The answer isn't what a digitgan gateway says."""


class BrokenStreamError(AnswerError):
    """A streamed answer ended before its end: the model server failed, or the version was withdrawn."""


@dataclass(frozen=True)
class FieldError:
    """One place at fault. ``place``: a JSON pointer into the body, a parameter's name, or a model's name."""

    place: str
    detail: str


class ProblemError(DigitganError):
    """The gateway answered with a problem document (RFC 9457).

    ``type`` is stable: programs may compare it, for example with "/problems/overloaded". ``title`` is the same for
    every problem of this type. ``detail`` helps to repair this request; ``errors`` has every place at fault.
    ``retry_after_s``: the seconds to wait before the next request; None if the gateway doesn't say.
    """

    def __init__(self, document: dict[str, Any], retry_after_s: float | None = None) -> None:
        self.type = str(document["type"])
        self.title = str(document["title"])
        self.status = int(document["status"])
        self.detail = str(document.get("detail", ""))
        self.errors = tuple(
            FieldError(str(one.get("pointer", one.get("parameter", one.get("model", "")))), str(one["detail"]))
            for one in document.get("errors", ())
        )
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.title} ({self.status}): {self.detail}")


class RefusedError(ProblemError):
    """4xx: the gateway won't do this; the request has to change."""


class InvalidRequestError(RefusedError):
    """422: the request has values that are not allowed; ``errors`` names them."""


class VersionNotFoundError(RefusedError):
    """404: the generator has no such version."""


class NoSeedIndexError(RefusedError):
    """409: this version of the generator has no index to choose ``digit`` and ``curated`` from."""


class ServiceError(ProblemError):
    """5xx: the gateway or its model server failed; the request was fine."""


class UnavailableError(ServiceError):
    """503: overloaded, restarting or not ready; it may go better in a while."""


_BY_TYPE: Final[dict[str, type[ProblemError]]] = {
    "/problems/invalid-request": InvalidRequestError,
    "/problems/version-not-found": VersionNotFoundError,
    "/problems/no-seed-index": NoSeedIndexError,
}


def problem_in(response: httpx.Response) -> DigitganError:
    """Returns what an answer with an error status means. Its body has been read."""
    try:
        if response.headers["content-type"].partition(";")[0] != "application/problem+json":
            raise ValueError("no problem document")
        document = response.json()
        status = response.status_code
        by_status = UnavailableError if status == 503 else ServiceError if status >= 500 else RefusedError
        return _BY_TYPE.get(document["type"], by_status)(document, retry_after_s(response))
    except (ValueError, KeyError, TypeError, AttributeError):
        what = f"{response.status_code} {response.reason_phrase}"
        return AnswerError(f"{response.url} answers {what}, and not as a digitgan gateway does")


def retry_after_s(response: httpx.Response) -> float | None:
    """Returns the seconds in ``Retry-After``; None where there is none, or a date, which our gateway never sends."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() else None
