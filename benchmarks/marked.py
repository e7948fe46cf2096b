"""Parts of the documentation that code writes: between the lines ``<!-- name -->`` and ``<!-- /name -->``."""

from pathlib import Path

from serving.files import write_atomically


def replaced_between_marks(content: str, name: str, text: str) -> str:
    """Returns ``content`` with ``text`` between the marks of this name. Raises ValueError without them."""
    before, opening, rest = content.partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->\n")
    if not (opening and closing):
        raise ValueError(f"there is no place for {name}")
    return f"{before}{opening}\n{text}\n\n{closing}{after}"


def replace_between_marks(path: Path, name: str, text: str) -> None:
    """Puts ``text`` between the marks of this name in a file. Raises ValueError without them."""
    write_atomically(path, replaced_between_marks(path.read_text("utf-8"), name, text.rstrip("\n")))
