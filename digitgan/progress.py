"""What a command is doing while it prints nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Names the block on stderr: with a spinner on a terminal, as a line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status(name):
            yield
    else:
        console.print(f"{name} …")
        yield
