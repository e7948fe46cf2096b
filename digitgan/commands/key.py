"""``digitgan key``: a new API key for the gateway."""

from typing import Annotated

import typer

from digitgan.errors import UserError, require


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, '_', '.' and '-'.")] = "me",
    images: Annotated[
        int | None, typer.Option(min=1, help="Images a minute. Default: DIGITGAN_KEY_IMAGES_PER_MINUTE.")
    ] = None,
) -> None:
    """Make an API key: print it, and the entry for DIGITGAN_API_KEYS.

    The key is for its owner and is stored nowhere. The entry holds its SHA-256 only, and goes into the gateway's
    settings, with those of other keys, separated by commas. While there are none, everybody may ask.
    """
    require("gateway", "fastapi", "uvicorn")
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
