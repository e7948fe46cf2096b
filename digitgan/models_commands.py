"""``digitgan models``: which versions there are, how good they are, and which one serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from digitgan.errors import told
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.model_card import CardError, read_card
from serving.quality_gate import (
    DEFAULT_THRESHOLDS,
    Threshold,
    ThresholdsError,
    figure,
    read_thresholds,
    shortfalls,
)
from serving.storage import find_versions

if TYPE_CHECKING:  # every command waits for what is imported here
    from serving.roll_out import ModelServers, RollOut

app: Final = typer.Typer(
    help="Say which version of a model serves, by the labels stable and canary.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ModelArgument = Annotated[
    str, typer.Argument(help=f"{GENERATOR}, {DISCRIMINATOR} or {CLASSIFIER}.", show_default=False)
]
ModelsOption = Annotated[
    Path, typer.Option("--models", help="Base directory: <name>/<version>/ and models.config, as export leaves them.")
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        help="The model server's gRPC address; of a name with several addresses, all are told. Without: only "
        "models.config is written, for servers that read it again (--model_config_file_poll_wait_seconds)."
    ),
]
ThresholdsOption = Annotated[
    Path,
    typer.Option(
        help="The quality gate: a JSON file with bounds for figures of the model card.",
        show_default="serving/thresholds.json",
    ),
]
TimeoutOption = Annotated[float, typer.Option(help="Seconds that a version has to load everywhere.", min=0.1)]

_KEY_FIGURES: Final = {
    GENERATOR: (
        ("Fréchet", "evaluation.figures.frechet_distance"),
        ("coverage", "evaluation.figures.coverage"),
        ("class KL", "evaluation.figures.class_kl"),
    ),
    DISCRIMINATOR: (("AUC", "detector.validation.auc"),),
    CLASSIFIER: (("accuracy", "test.accuracy"),),
}


@app.command("list")
def list_models(
    models: ModelsOption = Path("models"),
    model_server: ServerOption = None,
    thresholds: ThresholdsOption = DEFAULT_THRESHOLDS,
) -> None:
    """List the versions: their labels, their states at the model server, their figures, and the gate's opinion.

    Below the list: what a version falls short in, and why one couldn't be loaded.
    """
    # 80 columns: each cell has a word or a number a line.
    headers = ("model", "version", "labels", "state", "figures", "gate")
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    remarks = []
    with _roll_out(models, model_server) as (changes, servers):
        bounds = read_thresholds(thresholds)
        for model in changes.models:
            labels = changes.labels(model)
            statuses = servers.statuses(model) if servers else {}
            on_disk = find_versions(models / model) if (models / model).is_dir() else {}
            for version in sorted({*on_disk, *statuses, *labels.values()}, reverse=True):
                figures, opinion, lacks = _judged(models / model / str(version), model, bounds.get(model, ()))
                states = statuses.get(version, [])
                table.add_row(
                    model,
                    str(version),
                    "\n".join(sorted(name for name, number in labels.items() if number == version)),
                    "\n".join(sorted({one.state for one in states})),
                    "\n".join(figures),
                    opinion,
                )
                remarks += [f"{model} {version}: {error}" for error in sorted({one.error for one in states} - {""})]
                remarks += [f"{model} {version} falls short: {one}" for one in lacks]
    Console(highlight=False).print(table)
    for remark in remarks:
        typer.echo(remark)


@app.command("promote")
def promote(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version's number.", show_default=False, min=1)],
    canary: Annotated[
        bool, typer.Option("--canary", help="Load it beside the stable one, with the label canary; stable stays.")
    ] = False,
    models: ModelsOption = Path("models"),
    model_server: ServerOption = None,
    thresholds: ThresholdsOption = DEFAULT_THRESHOLDS,
    force: Annotated[bool, typer.Option("--force", help="Promote what falls short of the quality gate, too.")] = False,
    timeout_s: TimeoutOption = 300.0,
) -> None:
    """Make a version the stable one.

    It has to pass the quality gate, is loaded beside the one that serves, and only when it is AVAILABLE at every model
    server do the labels move. Where it can't be loaded, nothing changes. The version before keeps the label previous,
    and stays loaded. A gateway follows with DIGITGAN_VERSION_LABEL=stable.

    [bold]digitgan models promote generator 4 --canary[/]    look at it first: requests may name its version
    [bold]digitgan models promote generator 4[/]             and then for everybody
    """
    from serving.roll_out import CANARY, STABLE

    with _roll_out(models, model_server, timeout_s) as (changes, _):
        changes.promote(model, version, CANARY if canary else STABLE, read_thresholds(thresholds), force=force)


@app.command("rollback")
def rollback(
    model: ModelArgument,
    models: ModelsOption = Path("models"),
    model_server: ServerOption = None,
    timeout_s: TimeoutOption = 300.0,
) -> None:
    """Make the version that was stable before the stable one again. It is loaded still, so it serves at once."""
    with _roll_out(models, model_server, timeout_s) as (changes, _):
        changes.rollback(model)


@contextmanager
def _roll_out(
    models: Path, target: str | None, timeout_s: float = 300.0
) -> Iterator[tuple["RollOut", "ModelServers | None"]]:
    from serving.model_config import ConfigError
    from serving.roll_out import ModelServers, RollOut, RollOutError

    with told(ConfigError, RollOutError, ThresholdsError):
        if target is None:
            yield RollOut(models, None, typer.echo, timeout_s), None
            return
        with ModelServers(target) as servers:
            yield RollOut(models, servers, typer.echo, timeout_s), servers


def _judged(directory: Path, model: str, thresholds: tuple[Threshold, ...]) -> tuple[list[str], str, list[str]]:
    """Returns a version's key figures, what the gate says in a word or two, and in what the version falls short."""
    try:
        card = read_card(directory)
    except CardError:
        return [], "no card", []
    found = {name: figure(card, path) for name, path in _KEY_FIGURES.get(model, ())}
    figures = [f"{name} {value:.3g}" for name, value in found.items() if value is not None]
    lacks = shortfalls(card, thresholds)
    return figures, "falls short" if lacks else "passes", lacks
