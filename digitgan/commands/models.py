"""``digitgan models``: which versions there are, how good they are, and which one serves."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from digitgan.commands import GROUP_OPTIONS, command
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.errors import UserError
from serving.storage import find_versions, newest_version
from serving.versions.model_card import CardError, read_card
from serving.versions.quality_gate import DEFAULT_THRESHOLDS, Thresholds, figure, read_thresholds, shortfalls

if TYPE_CHECKING:  # every command waits for what is imported here
    from serving.versions.roll_out import RollOut, Snapshot

app: Final = typer.Typer(**GROUP_OPTIONS)
group: Final = typer.Typer(help="Choose the version of a model that serves, by labels.", **GROUP_OPTIONS)
app.add_typer(group, name="models", rich_help_panel="Manage")

ModelArgument = Annotated[
    str, typer.Argument(help=f"{GENERATOR}, {DISCRIMINATOR} or {CLASSIFIER}.", show_default=False)
]
ModelsOption = Annotated[
    Path, typer.Option("--models", help="Base directory: <name>/<version>/ and models.config, as export leaves them.")
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        envvar="DIGITGAN_MODEL_SERVER",
        help="The model server's gRPC address, as for digitgan gateway. A name with several addresses stands for "
        "all of these servers. Default: 127.0.0.1:8500.",
    ),
]
ThresholdsOption = Annotated[
    Path,
    typer.Option(
        help="The quality gate: a JSON file with bounds for figures of the model card.",
        show_default="serving/versions/thresholds.json",
    ),
]
PollOption = Annotated[
    float,
    typer.Option(
        "--poll-seconds", help="How often the model servers poll: their --file_system_poll_wait_seconds.", min=0.01
    ),
]

NEWEST: Final = "newest"

_KEY_FIGURES: Final = {
    GENERATOR: (
        ("Fréchet", "evaluation.figures.frechet_distance"),
        ("coverage", "evaluation.figures.coverage"),
        ("class KL", "evaluation.figures.class_kl"),
    ),
    DISCRIMINATOR: (("AUC", "detector.validation.auc"),),
    CLASSIFIER: (("accuracy", "test.accuracy"),),
}


@command(group, "list")
def list_models(
    models: ModelsOption = Path("models"),
    model_server: ServerOption = None,
    thresholds: ThresholdsOption = DEFAULT_THRESHOLDS,
) -> None:
    """List the versions: labels, states, figures, and whether they pass the quality gate.

    Below the list are: differences between the model servers and models.config, the thresholds that a version misses,
    and the error of a version that failed to load. Without a model server, the labels come from models.config.

    Examples:
        digitgan models list
        digitgan models list --models /models --model-server localhost:8500
    """
    from serving.versions.roll_out import RollOutError, format_labels

    # 80 columns: each cell has a word or a number a line.
    headers = ("model", "version", "labels", "state", "figures", "gate")
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    remarks: list[str] = []
    silent: list[str] = []
    with _roll_out(models, model_server) as roll_out:
        bounds = read_thresholds(thresholds)
        servers: list[Snapshot] = []
        for server in roll_out.servers:
            try:
                servers.append(roll_out.look_at(server))
            except RollOutError as error:
                silent.append(str(error))
        for model in roll_out.models:
            written = roll_out.labels(model)
            shown = [server.labels[model] for server in servers] or [written]
            on_disk = find_versions(models / model) if (models / model).is_dir() else {}
            known = {version for server in servers for version in server.statuses[model]}
            for version in sorted({*on_disk, *known, *written.values()}, reverse=True):
                figures, opinion, lacks = _judged(models / model / str(version), model, bounds.get(model, {}))
                statuses = [server.statuses[model][version] for server in servers if version in server.statuses[model]]
                table.add_row(
                    model,
                    str(version),
                    "\n".join(sorted({label for labels in shown for label in labels if labels[label] == version})),
                    "\n".join(sorted({one.state for one in statuses})),
                    "\n".join(figures),
                    opinion,
                )
                remarks += [
                    f"{model} {version}: {error}" for error in sorted({one.error_message for one in statuses} - {""})
                ]
                remarks += [f"{model} {version} falls short: {one}" for one in lacks]
            remarks += [
                f"{model}: {server.address} serves {format_labels(server.labels[model]) or 'no label'}, and "
                f"models.config says {format_labels(written) or 'no label'}"
                for server in servers
                if server.labels[model] != written
            ]
        Console(highlight=False).print(table)
        for remark in remarks:
            typer.echo(remark)
        if silent and model_server is not None:
            raise RollOutError("; ".join(silent))
    for remark in silent:
        typer.echo(f"No states are shown: {remark}")


@command(group, "promote")
def promote(
    model: ModelArgument,
    version: Annotated[
        str, typer.Argument(help=f"The version's number, or '{NEWEST}': the highest on disk.", show_default=False)
    ],
    canary: Annotated[
        bool, typer.Option("--canary", help="Load it beside the stable version, with the label canary.")
    ] = False,
    models: ModelsOption = Path("models"),
    model_server: ServerOption = None,
    thresholds: ThresholdsOption = DEFAULT_THRESHOLDS,
    force: Annotated[bool, typer.Option("--force", help="Promote a version that fails the quality gate, too.")] = False,
    poll_s: PollOption = 1.0,
) -> None:
    """Make a version the stable one.

    The version must pass the quality gate. Every model server loads it beside the stable version. The label moves when
    it is AVAILABLE at all of them. If one of them cannot load it, nothing changes. The version that was stable stays
    loaded, with the label previous. A gateway with DIGITGAN_VERSION_LABEL=stable follows the label.

    Examples:
        digitgan models promote generator 4 --canary    for requests that name it
        digitgan models promote generator 4             for all requests
    """
    from serving.versions.roll_out import CANARY, STABLE

    with _roll_out(models, model_server, poll_s, exclusive=True) as roll_out:
        if version == NEWEST:
            newest = newest_version(models / model)
            if newest is None:
                raise UserError(f"{models / model} holds no version")
            version = newest.name
        if not version.isdecimal():
            raise UserError(f"VERSION is a number or '{NEWEST}', not '{version}'")
        label = CANARY if canary else STABLE
        roll_out.promote(model, int(version), label, read_thresholds(thresholds), force=force)


@command(group, "rollback")
def rollback(
    model: ModelArgument,
    models: ModelsOption = Path("models"),
    model_server: ServerOption = None,
    poll_s: PollOption = 1.0,
) -> None:
    """Make the version with the label previous the stable one again.

    It is still loaded, so it serves at once.

    Examples:
        digitgan models rollback generator
        digitgan models rollback generator --model-server localhost:8500
    """
    with _roll_out(models, model_server, poll_s, exclusive=True) as roll_out:
        roll_out.rollback(model)


@command(group, "add")
def add(
    source: Annotated[Path, typer.Argument(help="A base directory with versions: <name>/<version>/.")],
    models: ModelsOption = Path("models"),
    mount_point: Annotated[
        Path, typer.Option(help="The base directory as the model servers see it, for models.config.")
    ] = Path("/models"),
) -> None:
    """Copy versions into the base directory that model servers read.

    Existing versions and models.config are kept. Without a models.config, the newest versions get the label stable.

    Examples:
        digitgan models add RUN/models
        digitgan models add RUN/models --models /models
    """
    from serving.versions.model_copy import add_versions

    add_versions(source, models, mount_point, typer.echo)


@contextmanager
def _roll_out(models: Path, target: str | None, poll_s: float = 1.0, *, exclusive: bool = False) -> Iterator["RollOut"]:
    """``exclusive``: no other command changes labels meanwhile. Each writes all labels, so one change would be lost."""
    from serving.files import locked
    from serving.tf_serving.server_config import MODELS_CONFIG
    from serving.versions.roll_out import RollOut, connected

    if not (models / MODELS_CONFIG).exists():
        here = models.absolute()
        raise UserError(
            f"{models} has no {MODELS_CONFIG}, which names the models and their labels. For model servers on this "
            f"machine make one with: digitgan models add {here} --models {here} --mount-point {here}"
            if models.is_dir()
            else f"{models} is no folder: name the base directory of the models with --models"
        )
    refusal = f"another command is changing the labels in {models} right now: repeat this one when it has ended"
    lock = locked(models / f".{MODELS_CONFIG}.lock", refusal) if exclusive else nullcontext()
    with lock, connected(target or "127.0.0.1:8500") as servers:
        yield RollOut(models, servers, typer.echo, poll_s)


def _judged(directory: Path, model: str, thresholds: Thresholds) -> tuple[list[str], str, list[str]]:
    """Returns a version's key figures, what the gate says in a word or two, and in what the version falls short."""
    try:
        card = read_card(directory)
    except CardError:
        return [], "no card", []
    found = {name: figure(card, path) for name, path in _KEY_FIGURES.get(model, ())}
    figures = [f"{name} {value:.3g}" for name, value in found.items() if value is not None]
    lacks = shortfalls(card, thresholds)
    return figures, "falls short" if lacks else "passes", lacks
