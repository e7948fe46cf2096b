"""``digitgan generate``, ``score`` and ``dataset``: what a gateway's clients can do, in a terminal."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from digitgan.commands import GROUP_OPTIONS, command
from digitgan.dataset import Format
from digitgan.errors import deferred_signals, require
from serving.errors import UserError
from serving.pretrained import MODELS_DIR

if TYPE_CHECKING:
    from digitgan.client import Client

app: Final = typer.Typer(**GROUP_OPTIONS)

UrlOption = Annotated[
    str | None, typer.Option(envvar="DIGITGAN_URL", help="The gateway's address. Default: http://127.0.0.1:8000.")
]
LocalOption = Annotated[
    bool, typer.Option("--local", help="Start a service for this command alone, on the models in the package.")
]

_MAX_SEEDS: Final = 100_000
_OF_IMAGES: Final = (413, 422)  # statuses: the image is too large, or the file is no image
_COLOURS: Final = {"real": "green", "fake": "red", "without ink": "yellow"}
_IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp")


@contextmanager
def _open_client(url: str | None, models: Path | None = None, retry_s: float = 0.0) -> Iterator["Client"]:
    """Gives a client of the gateway at ``url``, or of one on ``models`` that runs as long as the block.

    Raises UserError for whatever the client raises in the block, with what to do next.
    """
    require("client")
    from digitgan.client import Client, DigitganError, UnreachableError

    try:
        with ExitStack() as opened:
            if models:
                from digitgan.local_service import local_service

                typer.echo("Starting a service …", err=True)
                with deferred_signals():  # A stop before the service is in ``opened`` would leave its threads running.
                    url = opened.enter_context(local_service(models))
            client = opened.enter_context(Client(url, retry_s=retry_s))
            while models and not client.ready():
                time.sleep(0.1)
            yield client
    except UnreachableError as error:
        raise UserError(f"{error}. Start a service with: digitgan up   (or name another by --url)") from error
    except (DigitganError, ValueError) as error:
        raise UserError(str(error)) from error


@command(app, "generate", "Make digits")
def generate(
    seed: Annotated[
        list[str] | None, typer.Option(help="A seed, or several as FIRST-LAST; may be given more than once.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Number of digits; the service chooses the seeds.")] = None,
    digit: Annotated[int | None, typer.Option(help="With --count: only this digit, 0 to 9.")] = None,
    curated: Annotated[bool, typer.Option("--curated", help="With --count: only clear ones.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Print the digit that the classifier reads.")] = False,
    scale: Annotated[int, typer.Option(help="In a file: each pixel becomes SCALE×SCALE pixels.")] = 1,
    version: Annotated[int | None, typer.Option(help="The generator's version. Default: the newest.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a file: .png (a sheet of several), .zip, .npy or .json.")
    ] = None,
    url: UrlOption = None,
    local: LocalOption = False,
) -> None:
    """Make digits, and draw them in the terminal or write them into a file.

    Examples:
        digitgan generate --count 5 --digit 3 --curated            five clear threes
        digitgan generate --count 1000 --labels --out digits.zip   with labels.csv
    """
    seeds = _seeds(seed) if seed else None
    if seeds and count is not None:
        raise UserError("--seed and --count both say which digits: give one of them")
    if seeds and (digit is not None or curated):
        raise UserError("--digit and --curated go with --count: a seed says already which digit it gives")
    if out is None and scale != 1:
        raise UserError("--scale is for files: give --out too")
    request: dict[str, Any] = {"seeds": seeds, "digit": digit, "curated": curated, "labels": labels, "version": version}
    with _open_client(url, MODELS_DIR if local else None) as client:
        if out is not None:
            saved = client.save(out, count, scale=scale, **request)
            typer.echo(f"{out}, by version {saved.version} of the {saved.model}")
            return
        digits = client.generate(count, **request)
    from digitgan.terminal import draw

    assert digits.seeds is not None
    captions = [f"seed {number}" for number in digits.seeds]
    if digits.labels is not None and digits.confidences is not None:
        captions = [
            f"{label}, {confidence:.1%}, {caption}"
            for label, confidence, caption in zip(digits.labels, digits.confidences, captions, strict=True)
        ]
    draw(Console(highlight=False), digits.pixels, captions)


def _seeds(texts: list[str]) -> list[int]:
    seeds: list[int] = []
    for text in texts:
        found = re.fullmatch(r"([0-9]{1,16})(?:-([0-9]{1,16}))?", text)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise UserError(f"--seed {text:.50}: should be a seed, 0 to 2^53 − 1, or FIRST-LAST")
        several = range(int(found[1]), int(found[2] or found[1]) + 1)
        if len(seeds) + len(several) > _MAX_SEEDS:
            raise UserError(f"--seed {text}: at most {_MAX_SEEDS} seeds at once")
        seeds += several
    return seeds


@command(app, "score", "Make digits")
def score(
    files: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP images; or folders of them.")],
    url: UrlOption = None,
    local: LocalOption = False,
) -> None:
    """Print how real the discriminator finds images.

    A 28×28 image in MNIST's form is scored as it is. In all other images, of any size, the ink is found first and
    fitted into MNIST's form.

    Examples:
        digitgan score 7.png photo.jpg
        digitgan score digits/            all images of a folder
    """
    require("client")
    from digitgan.client import RefusedError

    images = [path for file in files for path in _images(file)]
    table = Table(Column("image", overflow="fold"), "verdict", "real", "logit", "reads as", "fitted")
    counts: Counter[str] = Counter()
    refused: list[str] = []
    with _open_client(url, MODELS_DIR if local else None) as client:
        for path in images:
            try:
                scores = client.score(path, labels=True)
            except RefusedError as error:
                if error.status not in _OF_IMAGES:
                    raise
                refused.append(f"{path}: {'; '.join(one.detail for one in error.errors) or error.detail}")
                continue
            (one,) = scores.scores
            verdict = one.verdict or "without ink"
            counts[verdict] += 1
            digit = "" if one.digit is None else f"{one.digit} ({one.confidence:.0%})"
            fitted = "yes" if one.fitted else "as it is"
            shown = f"[{_COLOURS[verdict]}]{verdict}[/]"
            table.add_row(escape(str(path)), shown, f"{one.probability:.2%}", f"{one.logit:.2f}", digit, fitted)
    if table.row_count:
        console = Console(highlight=False)
        console.print(table)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        console.print(f"{verdicts}, by version {scores.version} of the {scores.model}")
    if refused:
        raise UserError("not scored: " + "; ".join(refused))


def _images(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGES)
    if not inside:
        raise UserError(f"{path} holds no images: {', '.join(_IMAGES)} are looked for")
    return inside


@command(app, "dataset", "Make digits")
def dataset(
    out: Annotated[Path, typer.Argument(help="The folder to make. It appears when the dataset is complete.")],
    count: Annotated[int, typer.Option(help="Digits in the training part.", min=1, max=1_000_000)] = 60_000,
    test: Annotated[
        int | None,
        typer.Option(
            help="Digits in the test part; 0: none. Default: a sixth of --count, as in MNIST.", min=0, max=1_000_000
        ),
    ] = None,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="'idx': MNIST's four files. 'npz': one file, as Keras's mnist.npz. 'png': a folder for each digit. "
            "'csv': a line for each image.",
        ),
    ] = "idx",
    balance: Annotated[
        Literal["uniform", "mnist", "natural"],
        typer.Option(
            help="'uniform': equally many of each digit. 'mnist': in MNIST's proportions. 'natural': as the generator "
            "makes them."
        ),
    ] = "uniform",
    confidence: Annotated[float, typer.Option(help="Minimum confidence of the classifier.", min=0, max=1)] = 0.99,
    score_floor: Annotated[
        float | None,
        typer.Option(
            help="Minimum logit of the discriminator, as in labels.csv; it costs some digits more seeds than "
            "others. Default: none."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Which dataset: two with different seeds share no digit.", min=0, max=2**21 - 1)
    ] = 0,
    version: Annotated[int | None, typer.Option(help="The generator's version. Default: the newest.")] = None,
    url: UrlOption = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Start a service on these models for this command alone: MODELS/<name>/<version>."),
    ] = None,
) -> None:
    """Make a dataset of labelled digits. The same command always makes the same dataset.

    The gateway at --url makes the digits. If there is none, the command starts a service and ends it afterwards. A
    command that was stopped continues where it stopped. dataset.json lists the models and the seeds; labels.csv
    has the seed, confidence and logit of each digit.

    Examples:
        digitgan dataset digits                              60,000 and 10,000
        digitgan dataset digits --count 6000 --format png    folders, as ImageFolder
    """
    require("client")
    from digitgan.dataset import job

    if url and models:
        raise UserError("--url (or DIGITGAN_URL) and --models both say what makes the digits: give one of them")
    plan = job.Plan(
        train=count,
        test=count // 6 if test is None else test,
        format=format_,
        balance=balance,
        confidence_floor=confidence,
        logit_floor=score_floor,
        seed=seed,
        generator=version,
    )
    if job.is_finished(out, plan):
        typer.echo(f"{out} is there already, with these options")
        return
    job.partial_folder(out).mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if not models:
        try:
            with _open_client(url) as client:
                client.models()
        except UserError:
            if url:  # A wrong address is an error at once. A later outage is waited out.
                raise
            models = MODELS_DIR
    with _open_client(url, models, retry_s=30.0) as client:
        job.make(out, plan, client)
    typer.echo(f"{out} is complete, in {time.monotonic() - started:.0f} seconds")
