"""The client for asyncio: ``digitgan.client.synchronous``, with ``await``."""

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import ArrayLike

from digitgan.client import errors, protocol
from digitgan.client.protocol import FORMATS, JSON, NPY, ZIP, Balance, ImageInput, Seeds, reading
from digitgan.client.results import Digits, LabelledDigits, Model, ModelVersion, Saved, Score, Scores

_DEFAULT_URL: Final = "http://127.0.0.1:8000"
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_TRY_AGAIN: Final = (429, 503)


class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """``Client`` with ``await``. One event loop's tasks may share it. Use it in ``async with``, or ``close`` it."""

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 60.0, retry_s: float = 10.0
    ) -> None:
        """Takes the arguments of ``digitgan.client.Client``."""
        self.url = (url or os.environ.get("DIGITGAN_URL") or _DEFAULT_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} should begin with http:// or https://")
        key = (api_key or os.environ.get("DIGITGAN_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("the API key should be of printable ASCII characters, as digitgan key prints it")
        headers = {"Request-Timeout": f"{min(max(timeout_s, 0.001), 999_999):.3f}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._retry_s = retry_s
        try:
            self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout_s, headers=headers)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.url!r} is no address: {error}") from error

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def generate(
        self,
        count: int | None = None,
        *,
        seeds: Seeds | None = None,
        noise: ArrayLike | None = None,
        digit: int | None = None,
        curated: bool = False,
        labels: bool = False,
        version: int | None = None,
        scale: int = 1,
    ) -> Digits:
        """Makes digits: ``count`` of them (one by default), or one for each of ``seeds``, or for each row of ``noise``.

        Args:
            count: the number of digits; the gateway chooses their seeds, which the result names.
            seeds: one or several, 0 to 2^53 − 1.
            noise: float [100] or [N, 100].
            digit, curated: with ``count``, only images that read as this digit, only good ones; they come with labels.
            labels: also return which digit each image reads as.
            version: of the generator; the newest by default.
            scale: 1 to 32: each pixel becomes a square of this side.
        """
        labels = labels or digit is not None or curated
        options = {"digit": digit, "curated": curated, "labels": labels, "version": version, "scale": scale}
        body = protocol.generate_body(count, seeds, noise, options)
        response = await self._send("POST", "/generate", ZIP if labels else NPY, json=body)
        with reading(response):
            return protocol.digits_from_zip(response) if labels else protocol.digits_from_npy(response, body)

    async def save(
        self,
        path: str | Path,
        count: int | None = None,
        *,
        seeds: Seeds | None = None,
        noise: ArrayLike | None = None,
        digit: int | None = None,
        curated: bool = False,
        labels: bool = False,
        version: int | None = None,
        scale: int = 1,
    ) -> Saved:
        """Writes digits into a file as the gateway makes them: .png (a sheet of several), .zip, .npy or .json.

        The file is there when it is complete. Memory doesn't grow with it. Arguments as for ``generate``.
        """
        options = {"digit": digit, "curated": curated, "labels": labels, "version": version, "scale": scale}
        body = protocol.generate_body(count, seeds, noise, options)
        target = Path(path)
        accept = FORMATS.get(target.suffix.lower())
        if accept is None:
            raise ValueError(f"{target} should end in one of {', '.join(FORMATS)}")
        partial = target.with_name(f"{target.name}.partial")
        try:
            with partial.open("wb") as file:
                async with aclosing(await self._send("POST", "/generate", accept, stream=True, json=body)) as response:
                    with reading(response):
                        model, version = protocol.maker_of(response)
                    async for chunk in self._chunks(response):
                        file.write(chunk)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return Saved(target, model, version)

    async def score(self, images: ImageInput | Sequence[ImageInput], *, labels: bool = False) -> Scores:
        """Scores how real images look to the discriminator.

        Args:
            images: uint8 [H, W] or [N, H, W]; or a PNG, JPEG or WebP file, as bytes or by its path; or several of
                these. 28×28 pixels as MNIST has them are scored as they are. Of any other image the ink is.
            labels: also return which digit each image reads as.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3:
            images = list(images)
        several = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
        files = [("images", (f"{index}", protocol.file_of(image))) for index, image in enumerate(several)]
        if not files:
            raise ValueError("there is no image to score")
        response = await self._send("POST", "/score", files=files, data={"labels": "true"} if labels else {})
        with reading(response):
            content = response.json()
            scores = tuple(
                Score(**{field.name: one[field.name] for field in fields(Score) if field.name in one})
                for one in content["scores"]
            )
            return Scores(scores, content["model"], content["version"])

    async def dataset(
        self,
        count: int,
        *,
        balance: Balance | None = None,
        quotas: Sequence[int] | None = None,
        confidence_floor: float | None = None,
        logit_floor: float | None = None,
        first_seed: int = 0,
        version: int | None = None,
        scale: int = 1,
    ) -> AsyncGenerator[LabelledDigits, None]:
        """Yields the first ``count`` digits, in the order of their seeds, that pass; in parts, as they are made.

        Args:
            balance: "uniform" (the default), "mnist" or "natural".
            quotas: in place of balance, at most so many of each digit, 0 to 9.
            confidence_floor: the least confidence of the classifier; 0.99 by default.
            logit_floor: the least logit of the discriminator; none by default.
            first_seed: the seed to begin at. To go on, give the last that came plus 1, and the quotas that are left.
            version, scale: as for ``generate``.
        """
        options = {
            "count": count,
            "balance": balance,
            "quotas": quotas,
            "confidence_floor": confidence_floor,
            "logit_floor": logit_floor,
            "first_seed": first_seed,
            "version": version,
            "scale": scale,
        }
        body = protocol.given(options)
        async with aclosing(await self._send("POST", "/dataset", NPY, stream=True, json=body)) as response:
            with reading(response):
                async for part in protocol.read_records(response, self._chunks(response), count, scale):
                    yield part

    async def models(self) -> tuple[Model, ...]:
        """Returns the models that the gateway needs, with versions, states and cards."""
        response = await self._send("GET", "/models")
        with reading(response):
            models = []
            for model in response.json()["models"]:
                versions = [ModelVersion(one["version"], one["state"], one["card"]) for one in model["versions"]]
                models.append(Model(model["name"], tuple(versions)))
            return tuple(models)

    async def ready(self) -> bool:
        """Whether the gateway answers and has all its models. Asks once."""
        try:
            response = await self._send("GET", "/healthz/ready", retry_s=0)
        except (errors.UnreachableError, errors.UnavailableError):
            return False
        with reading(response):
            return bool(response.json()["status"] == "ready")

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
        except httpx.TimeoutException as error:
            raise errors.SlowAnswerError(
                f"{response.url}: the answer stopped coming ({type(error).__name__})"
            ) from error
        except httpx.TransportError as error:
            raise errors.BrokenStreamError(
                f"{response.url}: the answer broke off: {error or type(error).__name__}"
            ) from error

    async def _send(
        self,
        method: str,
        path: str,
        accept: str = JSON,
        *,
        stream: bool = False,
        retry_s: float | None = None,
        **content: Any,
    ) -> httpx.Response:
        """Returns an answer with status 200; with ``stream``, its body is still to come. Raises DigitganError.

        Calls only read, so they are safe to repeat: after a failed connection, 503 and 429, but not after a timeout. A
        ``Retry-After`` is waited for in full. Other pauses double, less a random part of up to half, so that clients
        that failed together do not return together. All pauses take at most ``retry_s``, by default the client's.
        """
        headers = {"Accept": accept}
        if "json" in content:  # with NumPy's numbers too; the gateway names those that are wrong, such as NaN
            headers["Content-Type"] = JSON
            content = {"content": json.dumps(content["json"], default=lambda number: number.tolist())}
        left_s = self._retry_s if retry_s is None else retry_s
        next_s = _FIRST_PAUSE_S
        while True:
            request = self._http.build_request(method, path, headers=headers, **content)
            pause_s = None
            try:
                response = await self._http.send(request, stream=stream)
                if response.is_success:
                    return response
                await response.aread()
                failure: errors.DigitganError = errors.problem_in(response)
                if response.status_code not in _TRY_AGAIN:
                    raise failure
                pause_s = errors.retry_after_s(response)
            except httpx.TimeoutException as error:
                raise errors.SlowAnswerError(f"{self.url} didn't answer in time ({type(error).__name__})") from error
            except httpx.TransportError as error:
                failure = errors.UnreachableError(f"{self.url} can't be reached: {error or type(error).__name__}")
            if pause_s is None:
                pause_s = next_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
            next_s = min(2 * next_s, _LONGEST_PAUSE_S)
            left_s -= max(pause_s, _FIRST_PAUSE_S)  # so that "Retry-After: 0" ends too
            if left_s < 0:
                raise failure
            await asyncio.sleep(pause_s)
