"""Writes ``docs/reference.md`` from the code: routes, problems, settings, commands, metrics.

make docs
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import typer
from prometheus_client.metrics import MetricWrapperBase

from api.app import create_app
from api.http import problems
from api.settings import PREFIX, Settings, load_settings
from api.telemetry.metrics import Metrics
from digitgan.cli import app

PAGE: Final = Path(__file__).parent / "reference.md"

_INTRODUCTION: Final = """\
# Reference

`make docs` writes this page from the code. `GET /docs` of a gateway shows more of each route, `GET /problems/…`
explains a problem, and `digitgan COMMAND --help` lists options.
"""
_ABOUT_ROUTES: Final = (
    "[http.md](http.md) has the rules for all routes, and the "
    "[Open Inference Protocol](http.md#open-inference-protocol) below `/v2`."
)
_ABOUT_SETTINGS: Final = (
    "The gateway reads these environment variables at its start, and does not start with a wrong value. "
    "An empty variable counts as absent."
)
_NUMBERS: Final = {2**53 - 1: "2^53−1", (2 - 2**-23) * 2.0**127: "3.4e38", -(2 - 2**-23) * 2.0**127: "−3.4e38"}


def page() -> str:
    """Returns the text of the page."""
    document = create_app(load_settings()).openapi()
    sections = {
        "HTTP routes": f"{_ABOUT_ROUTES}\n\n{_routes(document)}",
        "Fields": "\n\n".join(_inputs(document)),
        "Problems": _table(("status", "types"), _problems()),
        "Settings of the gateway": f"{_ABOUT_SETTINGS}\n\n{_settings()}",
        "Commands": _table(("command", ""), _commands()),
        "Metrics": _table(("metric", "labels", ""), _metrics()),
    }
    return _INTRODUCTION + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        if not path.startswith("/v2"):
            for method, operation in item.items():
                yield f"{method.upper()} {path}", operation


def _routes(document: dict[str, Any]) -> str:
    return _table(
        ("route", ""), ((_code(route), operation.get("summary", "")) for route, operation in _operations(document))
    )


def _inputs(document: dict[str, Any]) -> Iterator[str]:
    """Yields a table for each route with a body: its fields."""
    schemas = document["components"]["schemas"]
    for route, operation in _operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if content:
            yield f"`{route}`: {', '.join(map(_code, content))}"
            schema = _resolved(next(iter(content.values()))["schema"], schemas)
            yield _table(("field", "accepts; default", ""), _fields(schema, schemas))


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    required = schema.get("required", ())
    for name, about in schema["properties"].items():
        accepts = _accepts(about, schemas) + " (required)" * (name in required)
        sentence, *_ = re.split(r"(?<=\.)\s", about["description"])
        yield _code(name), f"{accepts}; {default}" if (default := _default(about)) else accepts, sentence


def _problems() -> Iterator[tuple[str, str]]:
    for status in sorted({one.status for one in problems.TYPES}):
        yield str(status), ", ".join(_code(f"/problems/{one.slug}") for one in problems.TYPES if one.status == status)


def _settings() -> str:
    properties = Settings.model_json_schema()["properties"]
    return _table(
        ("variable", "default", ""),
        (
            (_code(f"{PREFIX}{name.upper()}"), _default(about), about["description"])
            for name, about in properties.items()
        ),
    )


def _commands(command: Any = None, name: str = "digitgan") -> Iterator[tuple[str, str]]:
    command = command or typer.main.get_command(app)
    for subname, subcommand in getattr(command, "commands", {}).items():
        if getattr(subcommand, "commands", {}):
            yield from _commands(subcommand, f"{name} {subname}")
        else:
            yield _code(f"{name} {subname}"), " ".join(subcommand.help.strip().split("\n\n")[0].split())


def _metrics() -> Iterator[tuple[str, str, str]]:
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            described = next(iter(metric.describe()))
            suffix = "_total" if described.type == "counter" else ""
            yield _code(described.name + suffix), ", ".join(metric._labelnames), described.documentation


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _accepts(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Returns in words what a JSON schema takes."""
    if "anyOf" in schema:
        kinds = [_accepts(one, schemas) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    match schema.get("type"):
        case "array":
            return f"list of{_size(schema)}: {_accepts(schema['items'], schemas)}"
        case "boolean":
            return "boolean"
        case "integer":
            return f"integer{_range(schema)}"
        case "number":
            return f"number{_range(schema)}"
        case "string" if schema.get("format") == "path":
            return "a path"
        case "string":
            return str(schema.get("contentEncoding", "text"))
        case _ if "$ref" in schema:
            return _accepts(_resolved(schema, schemas), schemas)
        case "object":
            return "object"
        case _:
            return "anything"


def _range(schema: dict[str, Any]) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if below is not None and schema["type"] == "integer":
        most = below - 1
    words = f"above {_number(above)}" if above is not None else _number(least)
    if most is None:
        return f", {words}" + " or more" * (least is not None) if words else ""
    return f", {words} to {_number(most)}"


def _size(schema: dict[str, Any]) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is None and most is None:
        return ""
    if least == most or most is None:
        return f" {least}{' or more' * (most is None)}"
    return f" {least or 0} to {most:,}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return _NUMBERS.get(value) or (f"{value:,g}" if isinstance(value, float) else f"{value:,}")


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value in (None, "", [], {}):
        return ""
    return _code(str(value).lower() if isinstance(value, bool) else value)


def _code(value: object) -> str:
    return f"`{value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(_cell(text) for text in row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(text: str) -> str:
    return " ".join(re.sub(r"\[/?\w+\]", "", text).split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
