"""What code writes into the documentation: tables, between the lines ``<!-- name -->`` and ``<!-- /name -->``."""

from collections.abc import Sequence
from pathlib import Path

from serving.files import write_atomically


def replace_between_marks(path: Path, name: str, text: str) -> None:
    """Puts ``text`` between the marks of this name in a file. Raises ValueError without them."""
    before, opening, rest = path.read_text("utf-8").partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->\n")
    if not (opening and closing):
        raise ValueError(f"{path} has no place for {name}")
    write_atomically(path, "".join((before, opening, "\n", text.rstrip("\n"), "\n\n", closing, after)))


def markdown_table(head: Sequence[str], *rows: Sequence[str]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))
