"""GET /docs: the API to click through. Swagger UI's files come with a package, so that nothing is fetched elsewhere."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

from api import problems

router = APIRouter(include_in_schema=False)

_FILES: Final = Path(str(files("fastapi_offline"))) / "static"
"""Swagger UI as fastapi-offline ships it; nothing else of that package is used."""
_SERVED: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon.png")

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>digitgan: the API</title>
<link rel="icon" href="/docs/favicon.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true });
"""
_CACHED: Final = {"Cache-Control": "public, max-age=3600"}


@router.get("/docs")
async def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE)


@router.get("/docs/start.js")
async def start() -> Response:
    """What starts Swagger UI: a file, since the page's policy allows nothing inline."""
    return Response(_START, media_type="text/javascript", headers=_CACHED)


@router.get("/docs/{name}")
async def file(name: str) -> FileResponse:
    """One of Swagger UI's files."""
    if name not in _SERVED:
        raise problems.ProblemError(problems.NOT_FOUND, "no such path")
    return FileResponse(_FILES / name, headers=_CACHED)
