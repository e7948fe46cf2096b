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
from collections.abc import Mapping
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
_QUOTA: Final = "digitgan.quota"  # where a request's scope has the TokenBucket of its key


def new_key() -> str:
    """Returns a new key: 256 random bits, with a prefix that searches for leaked secrets can find."""
    return f"digitgan_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """Returns the key's SHA-256 in hexadecimal, as the settings hold it."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys_of(text: str) -> dict[str, int | None]:
    """Returns each key's images a minute (None: the default) by its SHA-256. Raises ValueError for a wrong entry."""
    names: set[str] = set()
    limits: dict[str, int | None] = {}
    for entry in text.replace(",", " ").split():
        match = _ENTRY.fullmatch(entry)
        if not match or match[1] in names or match[3] == "0":
            raise ValueError("should be name:sha256 or name:sha256:images-a-minute for each key, separated by commas")
        names.add(match[1])
        limits[match[2]] = int(match[3]) if match[3] else None
    return limits


class TokenBucket:
    """So many images a minute, and as many at once. A minute's worth is there at the start."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.level = float(quota)
        self._at = time.monotonic()

    def refill(self) -> None:
        """Adds the images of the time since the last call."""
        now = time.monotonic()
        self.level = min(self.quota, self.level + (now - self._at) * self.quota / WINDOW_S)
        self._at = now

    def take(self, images: int, again: int = 0) -> None:
        """Takes ``images``, or raises ProblemError (429). ``again``: what a repeated request pays besides."""
        self.refill()
        if self.level < images:
            wait_s = math.ceil((images - self.level + again) * WINDOW_S / self.quota)
            detail = f"the API key has {self.quota} images a minute; enough for this request in {wait_s} s"
            raise ProblemError(RATE_LIMITED, detail, headers={"Retry-After": str(wait_s)})
        self.level -= images

    def fields(self) -> dict[str, str]:
        """Returns ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10)."""
        self.refill()
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
    bucket.take(images - 1, again=1)


def charge_made(request: Request, images: int) -> None:
    """Takes ``images`` that were made beyond those that the request was charged for. The key may then owe images."""
    bucket: TokenBucket | None = request.scope.get(_QUOTA)
    if bucket is not None:
        bucket.refill()
        bucket.level -= images


class CheckKeys:
    """ASGI middleware: lets requests with one of ``keys`` pass. Answers say how many images the key has left.

    ``images_per_minute`` is for keys without a number of their own; 0 is no limit.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, int | None], images_per_minute: int) -> None:
        self._app = app
        # By the key's SHA-256. Keys are random, so the time of a look-up helps no attacker.
        limits = {sha256: limit or images_per_minute for sha256, limit in keys.items()}
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
            sha256 = hash_of(given)
            if sha256 not in self._buckets:
                detail = "the API key is not valid" if given else "send the header Authorization: Bearer <key>"
                raise ProblemError(UNAUTHENTICATED, detail)
            if bucket := self._buckets[sha256]:
                bucket.take(1)
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
