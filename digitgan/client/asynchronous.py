"""The client for asyncio: ``digitgan.client.synchronous``, with ``await``."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from numpy.typing import ArrayLike

from digitgan.client import protocol
from digitgan.client.errors import UnavailableError, UnreachableError
from digitgan.client.files import partial_file
from digitgan.client.protocol import Balance, Call, ImageInput, Seeds
from digitgan.client.results import Digits, LabelledDigits, Model, Saved, Scores
from digitgan.client.retries import Outcome, Retries

_T = TypeVar("_T")


class AsyncClient:
    """A gateway, as Python sees it: arrays in, arrays out.

    Connections are kept and reused, so make one client and keep it; one event loop's tasks may share it. Use it as an
    async context manager, or ``close`` it.

        async with AsyncClient() as client:
            digits = await client.generate(1000, labels=True)
            print(digits.pixels.shape, digits.labels[:10])

    All methods raise DigitganError (``digitgan.client.errors`` shows its kinds); ValueError for what can't be sent.
    """

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 60.0, retry_s: float = 10.0
    ) -> None:
        """
        Args:
            url: the gateway's address. Default: the environment's DIGITGAN_URL, or else http://127.0.0.1:8000.
            api_key: where the gateway wants one. Default: the environment's DIGITGAN_API_KEY, or else none.
            timeout_s: seconds to connect, and to wait for the next piece of an answer. The gateway is told, and makes
                nothing that would come later.
            retry_s: seconds that the pauses before retries may take in one call. Calls are repeated when the
                connection fails and after 503 and 429, whose ``Retry-After`` is kept to. 0: never.
        """
        self.url = protocol.base_url(url)
        self._retry_s = retry_s
        self._http = httpx.AsyncClient(
            base_url=self.url, timeout=timeout_s, headers=protocol.headers(api_key, timeout_s)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            count: so many, from seeds that the gateway chooses and the result tells.
            seeds: one or several, 0 to 2^53 − 1.
            noise: float [100] or [N, 100].
            digit: with ``count``, only images that read as this digit; they come with labels.
            curated: with ``count``, only good ones; they come with labels.
            labels: tell which digit each image reads as.
            version: of the generator; the newest by default.
            scale: 1 to 32: each pixel becomes a square of this side.
        """
        body = protocol.generate_body(
            count, seeds=seeds, noise=noise, digit=digit, curated=curated, version=version, scale=scale
        )
        return await self._send(protocol.generate(body, labels=labels))

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
        body = protocol.generate_body(
            count, seeds=seeds, noise=noise, digit=digit, curated=curated, version=version, scale=scale
        )
        target = Path(path)
        call = protocol.save(target, body, labels=labels)
        with partial_file(target) as file:
            async with self._open(call) as response:
                model, version = call.answer(response)
                async for chunk in self._chunks(response):
                    file.write(chunk)
        return Saved(target, model, version)

    async def score(self, images: ImageInput | Sequence[ImageInput], *, labels: bool = False) -> Scores:
        """Asks the discriminator how real images look.

        Args:
            images: uint8 [H, W] or [N, H, W]; or a PNG, JPEG or WebP file, as bytes or by its path; or several of
                these. 28×28 pixels as MNIST has them are scored as they are. Of any other image the ink is.
            labels: also return which digit each image reads as.
        """
        return await self._send(protocol.score(images, labels=labels))

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
            count: so many.
            balance: "uniform" (the default), "mnist" or "natural".
            quotas: in place of balance, at most so many of each digit, 0 to 9.
            confidence_floor: the least confidence of the classifier; 0.99 by default.
            logit_floor: the least logit of the discriminator; none by default.
            first_seed: the seed to begin at. To go on, give the last one that came plus 1, and what is left of the
                quotas.
            version: of the generator; the newest by default.
            scale: 1 to 32.
        """
        call = protocol.dataset(
            count,
            balance=balance,
            quotas=quotas,
            confidence_floor=confidence_floor,
            logit_floor=logit_floor,
            first_seed=first_seed,
            version=version,
            scale=scale,
        )
        async with self._open(call) as response:
            reader = call.answer(response)
            async for chunk in self._chunks(response):
                if (part := reader.feed(chunk)) is not None:
                    yield part
            reader.finish()

    async def models(self) -> tuple[Model, ...]:
        """Returns the models that the gateway needs, with versions, states and cards."""
        return await self._send(protocol.models())

    async def ready(self) -> bool:
        """Whether the gateway answers and has all its models. Asks once."""
        call = protocol.ready()
        try:
            return call.answer(protocol.checked(await self._once(call.request(self._http), stream=False), self.url))
        except (UnreachableError, UnavailableError):
            return False

    async def _send(self, call: Call[_T]) -> _T:
        return call.answer(await self._completed(call, stream=False))

    @asynccontextmanager
    async def _open(self, call: Call[_T]) -> AsyncIterator[httpx.Response]:
        """Gives an answer whose status is 200 and whose body is still to come."""
        response = await self._completed(call, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
        except httpx.TransportError as error:
            raise protocol.broken(error, response.url) from error

    async def _completed(self, call: Call[_T], *, stream: bool) -> httpx.Response:
        retries = Retries(self._retry_s)
        while True:
            outcome = await self._once(call.request(self._http), stream=stream)
            pause_s = retries.pause_s(outcome)
            if pause_s is None:
                return protocol.checked(outcome, self.url)
            await asyncio.sleep(pause_s)

    async def _once(self, request: httpx.Request, *, stream: bool) -> Outcome:
        try:
            response = await self._http.send(request, stream=stream)
            if stream and not response.is_success:
                await response.aread()
                await response.aclose()
        except httpx.TransportError as error:
            return error
        return response
