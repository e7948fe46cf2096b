"""``digitgan key``: a new API key for the gateway."""

from typing import Annotated

import typer

from digitgan.errors import require
from serving.errors import UserError


def key(
    name: Annotated[str, typer.Argument(help="The client's name: letters, digits, '_', '.' and '-'.")] = "me",
    images: Annotated[
        int | None, typer.Option(min=1, help="Images a minute. Default: DIGITGAN_KEY_IMAGES_PER_MINUTE.")
    ] = None,
) -> None:
    """Make an API key, and print it with its entry for DIGITGAN_API_KEYS.

    Give the key to the client: it is stored nowhere. The entry has only its SHA-256 hash. Add the entry to the
    gateway's DIGITGAN_API_KEYS, separated by commas. Without entries, every client has access.

    Examples:
        digitgan key alice
        digitgan key bob --images 600    at most 600 images a minute
    """
    require("gateway")
    from api.middleware.keys import hash_of, keys_of, new_key

    made = new_key()
    entry = f"{name}:{hash_of(made)}" + (f":{images}" if images else "")
    try:
        keys_of(entry)
    except ValueError as error:
        raise UserError(f"{name!r} is no name: letters, digits, '_', '.' and '-', 64 at most") from error
    typer.echo(f"key:   {made}")
    typer.echo(f"entry: {entry}")
    typer.echo("Use it:    curl -H 'Authorization: Bearer <key>' …", err=True)
    typer.echo("Accept it: DIGITGAN_API_KEYS=<entry> digitgan up", err=True)
