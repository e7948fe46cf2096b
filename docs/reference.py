"""Writes the reference: the parts of the pages that follow from the code, each between its marks.

    make docs

Settings, commands, routes, metrics and problems are described where they are defined, and only there. A test holds
the pages to what this writes.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import typer
from prometheus_client.metrics import MetricWrapperBase

from api import problems
from api.app import create_app
from api.metrics import Metrics
from api.problems import ProblemType
from api.settings import PREFIX, Settings, load_settings
from benchmarks.marked import replace_between_marks
from digitgan.cli import app

DOCS: Final = Path(__file__).parent

Blocks = dict[str, str]
"""What stands between the marks of a page, by the marks' name."""

_NUMBERS: Final = {2**53 - 1: "2^53 − 1", (2 - 2**-23) * 2.0**127: "3.4e38", -(2 - 2**-23) * 2.0**127: "−3.4e38"}


def pages() -> dict[Path, Blocks]:
    """Returns all that is written, by page."""
    return {
        DOCS / "settings.md": {"settings": settings()},
        DOCS / "cli.md": {"commands": commands()},
        DOCS / "http.md": routes(),
        DOCS / "observability.md": {"metrics": metrics()},
        DOCS / "problems.md": {"problems": "\n".join(problem.page for problem in problems.TYPES).strip()},
    }


def settings() -> str:
    """Returns the table of the gateway's environment variables."""
    schema = Settings.model_json_schema()
    return _table(
        ("variable", "default", "accepts", "meaning"),
        (
            (_code(f"{PREFIX}{name.upper()}"), _default(about), _accepts(about, {}), about["description"])
            for name, about in schema["properties"].items()
        ),
    )


def metrics() -> str:
    """Returns the table of all metrics but the process's own."""
    return _table(
        ("metric", "type", "labels", "what"),
        (
            (
                _code(metric._name + ("_total" if metric._type == "counter" else "")),
                str(metric._type),
                ", ".join(metric._labelnames),
                str(metric._documentation),
            )
            for metric in vars(Metrics()).values()
            if isinstance(metric, MetricWrapperBase)
        ),
    )


def commands() -> str:
    """Returns a section for each command, in the order of ``digitgan --help``."""
    root = typer.main.get_command(app)
    return "\n\n".join(_sections("digitgan", root, typer.Context(root, info_name="digitgan")))


def _sections(name: str, command: Any, context: Any) -> Iterator[str]:
    subcommands = getattr(command, "commands", {})
    parameters = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    if context.parent:
        yield f"## `{name}`"
    if not subcommands:
        yield f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```"
    yield from (_help(paragraph) for paragraph in re.split(r"\n\s*\n", command.help.strip()))
    panels: dict[str, list[tuple[str, str]]] = {}
    for one in parameters:
        if "--help" not in one.opts and (record := one.get_help_record(context)):
            panel = getattr(one, "rich_help_panel", None) or ("option" if one.opts[0].startswith("-") else "argument")
            panels.setdefault(panel, []).append((_code(record[0]), _plain(record[1])))
    for panel, rows in panels.items():
        yield _table((panel.lower(), "what"), rows)
    for subname, subcommand in subcommands.items():
        below = typer.Context(subcommand, info_name=subname, parent=context)
        yield from _sections(f"{name} {subname}", subcommand, below)


def _help(paragraph: str) -> str:
    """Returns a paragraph of a command's help; one of examples as a block."""
    examples = re.findall(r"\[bold\](.+?)\[/\] *([^[\n]*)", paragraph)
    if not examples:
        return _plain(paragraph)
    width = max(len(command) for command, _ in examples)
    lines = [f"$ {command:{width}}  # {about}".rstrip(" #") for command, about in examples]
    return "\n".join(["```console", *lines, "```"])


def _plain(text: str) -> str:
    """Returns the help's words as Markdown, its pages as links."""
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", re.sub(r"([<*])", r"\\\1", " ".join(text.split())))


def routes() -> Blocks:
    """Returns what each route takes, answers, and fails with."""
    document = create_app(load_settings()).openapi()
    return {
        f"{method.upper()} {path}": "\n\n".join(_route(operation, document["components"]["schemas"]))
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def _route(operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    parameters = operation.get("parameters", ())
    if parameters:
        yield _table(
            ("parameter", "in", "accepts", "default", "what"),
            (
                (
                    _code(one["name"]),
                    one["in"],
                    _accepts(one["schema"], schemas),
                    _default(one["schema"]),
                    one["description"],
                )
                for one in parameters
            ),
        )
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        schema = _resolved(next(iter(body.values()))["schema"], schemas)
        yield f"Body: {_either(body)}."
        yield _table(("field", "accepts", "default", "what"), _fields(schema, schemas, request=True))
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if problems.MEDIA_TYPE in content:
            continue
        headers = f" Headers: {', '.join(map(_code, answer['headers']))}." if "headers" in answer else ""
        formats = f"{_either(content)}. " if content else ""
        said = answer["description"].rstrip(".").removeprefix("Successful Response")
        yield f"Answer {status}: {formats}{said + '.' if said else ''}{headers}".strip()
        schema = _resolved(content.get("application/json", {}).get("schema", {}), schemas)
        if "properties" in schema:
            yield _table(
                ("in JSON", "", "what"), (row[:2] + row[3:] for row in _fields(schema, schemas, request=False))
            )
    failures = [problem for problem in problems.TYPES if _fails_with(operation, problem)]
    if failures:
        yield f"Problems: {', '.join(f'[{one.slug}](problems.md#{_anchor(one.title)})' for one in failures)}."


def _fields(
    schema: dict[str, Any], schemas: dict[str, Any], *, request: bool, prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """Yields a row for each field, those of objects within it after it."""
    needed = schema.get("required", ())
    for name, about in schema["properties"].items():
        default = _default(about) or ("required" if request and name in needed else "")
        yield _code(f"{prefix}{name}"), _accepts(about, schemas), default, about["description"]
        parts = about
        for one in about.get("anyOf", ()):
            parts = one if "$ref" in one else parts
        many = "[]" if "items" in parts else ""
        within = _resolved(parts.get("items", parts), schemas)
        if within.get("properties"):
            yield from _fields(within, schemas, request=request, prefix=f"{prefix}{name}{many}.")


def _fails_with(operation: dict[str, Any], problem: ProblemType) -> bool:
    answer = operation["responses"].get(str(problem.status), {})
    return problem.title in answer.get("description", "").split("; ")


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
    if "const" in schema:
        return _code(json.dumps(schema["const"]))
    match schema.get("type"):
        case "array":
            return f"list of{_size(schema)}: {_accepts(schema['items'], schemas)}"
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return f"whole number{_range(schema)}"
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


def _either(media_types: Iterable[str]) -> str:
    return ", ".join(map(_code, media_types))


def _code(value: object) -> str:
    return f"`{value}`"


def _anchor(title: str) -> str:
    """Returns the anchor that forges give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    """Writes all of it."""
    for page, blocks in pages().items():
        for name, text in blocks.items():
            replace_between_marks(page, name, text)


if __name__ == "__main__":
    main()
