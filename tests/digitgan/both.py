"""The two clients behind one face, so that one suite holds both to the same."""

import asyncio
from types import TracebackType
from typing import Any, Self

from digitgan import AsyncClient, Client


class Both:
    """Calls a method of the sync or of the async client, and returns its result; ``dataset`` as a list."""

    def __init__(self, kind: str, url: str, **settings: Any) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        self._client: Any = (AsyncClient if self._runner else Client)(url, **settings)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if self._runner is None:
            return (lambda *a, **k: list(method(*a, **k))) if name == "dataset" else method

        def called(*arguments: Any, **named: Any) -> Any:
            async def collected() -> list[Any]:
                return [part async for part in method(*arguments, **named)]

            assert self._runner
            return self._runner.run(collected() if name == "dataset" else method(*arguments, **named))

        return called

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._runner:
            self._runner.close()
