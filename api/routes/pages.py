"""The two pages, as static files with relative addresses: the studio at ``/`` and the API at ``/docs``."""

from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.routes.cacheable import REVALIDATE

_HERE: Final = Path(__file__).parents[1]


class _Files(StaticFiles):
    """Files that a browser keeps, and asks each time whether they have changed. They are always sent whole."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        # Starlette would answer a wrong range in plain text.
        scope["headers"] = [field for field in scope["headers"] if field[0] != b"range"]
        return await super().get_response(path, scope)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({"Cache-Control": REVALIDATE, "Accept-Ranges": "none"})
        return response


def mount(app: FastAPI) -> None:
    """Adds the pages and their files to ``app``."""
    _mount(app, "/", "/studio", _Files(directory=_HERE / "studio"))
    # fastapi-offline has the files of Swagger UI, so that no page loads anything from elsewhere.
    _mount(app, "/docs", "/docs/files", _Files(directory=_HERE / "docs_page", packages=[("fastapi_offline", "static")]))


def _mount(app: FastAPI, path: str, files_path: str, files: StaticFiles) -> None:
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.add_route(path, page, include_in_schema=False)
    app.mount(files_path, GZipMiddleware(files))
