"""API keys: which clients have access, and to how many images a minute. Off unless keys are configured.

The settings hold SHA-256 hashes only. A key is 256 random bits and cannot be guessed. A slow hash (scrypt, Argon2)
protects passwords that can be guessed; here it would only add 50 ms to each request.
"""

import base64
import hashlib
import math
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import RATE_LIMITED, UNAUTHENTICATED, ProblemError, at_pointer, invalid, problem_response

OPEN: Final = ("/healthz/", "/v2/health/", "/metrics", "/problems/")
"""Paths that begin like this take no key: probes and scrapers have none, and problems should be explained."""

WINDOW_S: Final = 60
_BEARER: Final = 'Bearer realm="digitgan"'
_BASIC: Final = 'Basic realm="digitgan", charset="UTF-8"'
_ENTRY: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}):([0-9a-f]{64})(?::([0-9]{1,9}))?")
_QUOTA: Final = "digitgan.quota"
"""Where a request's scope has the TokenBucket of its key."""


@dataclass(frozen=True)
class ApiKey:
    """One configured key: its owner's name, its SHA-256, and its images a minute (None: the default)."""

    name: str
    sha256: bytes
    images_per_minute: int | None = None


def new_key() -> str:
    """Returns a new key: 256 random bits, with a prefix that searches for leaked secrets can find."""
    return f"digitgan_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """Returns the key's SHA-256 in hexadecimal, as the settings hold it."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys_of(text: str) -> tuple[ApiKey, ...]:
    """Returns the keys in a setting. Raises ValueError for a wrong one, and for a name that is there twice."""
    found: dict[str, ApiKey] = {}
    for entry in text.replace(",", " ").split():
        match = _ENTRY.fullmatch(entry)
        if not match or match[1] in found or match[3] == "0":
            raise ValueError("should be name:sha256 or name:sha256:images-a-minute for each key, separated by commas")
        found[match[1]] = ApiKey(match[1], bytes.fromhex(match[2]), int(match[3]) if match[3] else None)
    return tuple(found.values())


class TokenBucket:
    """So many images a minute, and as many at once. A minute's worth is there at the start."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.level = float(quota)
        self._at = time.monotonic()

    def take(self, images: int) -> float:
        """Takes ``images`` and returns 0, or takes nothing and returns in how many seconds there are enough."""
        now = time.monotonic()
        self.level = min(self.quota, self.level + (now - self._at) * self.quota / WINDOW_S)
        self._at = now
        if self.level < images:
            return (images - self.level) * WINDOW_S / self.quota
        self.level -= images
        return 0.0

    def fields(self) -> dict[str, str]:
        """Returns ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10, 3 and 4)."""
        self.take(0)
        full_s = math.ceil((self.quota - self.level) * WINDOW_S / self.quota)
        return {
            "RateLimit-Policy": f'"images";q={self.quota};w={WINDOW_S};qu="images"',
            "RateLimit": f'"images";r={max(0, int(self.level))};t={full_s}',
        }


def charge(request: Request, images: int, pointer: str) -> None:
    """Takes ``images`` from what the request's key has left, less the one that every request is charged already.

    Raises ProblemError: 429 if there are too few left, 422 at ``pointer`` if the key never has as many.
    """
    bucket: TokenBucket | None = request.scope.get(_QUOTA)
    if bucket is None or images <= 1:
        return
    if images > bucket.quota:
        raise invalid(at_pointer(pointer, f"{images} images; the API key has {bucket.quota} a minute"))
    _take(bucket, images - 1, again=1)


def charge_made(request: Request, images: int) -> None:
    """Takes ``images`` that were made beyond those that the request was charged for. The key may then owe images."""
    bucket: TokenBucket | None = request.scope.get(_QUOTA)
    if bucket is not None:
        bucket.take(0)
        bucket.level -= images


def _take(bucket: TokenBucket, images: int, again: int = 0) -> None:
    """Takes ``images``, or raises ProblemError (429). ``again``: what the request has paid and will pay once more."""
    if missing_s := bucket.take(images):
        wait_s = math.ceil(missing_s + again * WINDOW_S / bucket.quota)
        detail = f"the API key has {bucket.quota} images a minute; enough for this request in {wait_s} s"
        raise ProblemError(RATE_LIMITED, detail, headers={"Retry-After": str(wait_s)})


class CheckKeys:
    """ASGI middleware: lets requests with one of ``keys`` pass. Answers say how many images the key has left.

    ``images_per_minute`` is for keys that name no number of their own; 0 is no limit.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], images_per_minute: int) -> None:
        self._app = app
        # By the key's SHA-256. Keys are random, so the time of a look-up helps no attacker.
        limits = {key.sha256: key.images_per_minute or images_per_minute for key in keys}
        self._buckets = {sha256: TokenBucket(limit) if limit else None for sha256, limit in limits.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OPEN):
            await self._app(scope, receive, send)
            return
        bucket = None

        async def with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Authorization")
                if "cache-control" in headers:  # what a key is needed for is in no shared cache (RFC 9111, 3.5)
                    headers["cache-control"] = headers["cache-control"].replace("public", "private")
                if bucket:
                    headers.update(bucket.fields())
            await send(message)

        try:
            given = _given_key(Headers(scope=scope).get("authorization", ""))
            sha256 = hashlib.sha256(given.encode()).digest()
            if sha256 not in self._buckets:
                detail = "the API key is not valid" if given else "send the header Authorization: Bearer <key>"
                raise ProblemError(UNAUTHENTICATED, detail)
            if bucket := self._buckets[sha256]:
                _take(bucket, 1)
        except ProblemError as error:
            refusal = problem_response(error, scope["path"])
            if error.problem is UNAUTHENTICATED:  # two fields: Chromium takes each for one challenge
                refusal.headers["WWW-Authenticate"] = _BEARER + (', error="invalid_token"' if given else "")
                refusal.headers.append("WWW-Authenticate", _BASIC)
            await refusal(scope, receive, with_fields)
            return
        scope[_QUOTA] = bucket
        await self._app(scope, receive, with_fields)


def _given_key(authorization: str) -> str:
    """Returns the key in ``Bearer`` (RFC 6750) or ``Basic`` credentials (RFC 7617: the password); "" without one."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return rest.strip() if scheme.lower() == "bearer" else ""
