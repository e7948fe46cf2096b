"""How many drawings are read right: MNIST's test images on other papers, and files named by their digit.

python -m benchmarks.drawings --data mnist.npz
python -m benchmarks.drawings --data mnist.npz --drawings FOLDER     # FOLDER/7/*.png: drawings of a seven

Without ``--drawings`` the table is written into docs/score.md too.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich import box
from rich.console import Console
from rich.table import Table

from api.digits.fit import read_digit
from benchmarks.marked import replace_between_marks
from serving.model_server.saved_model import SavedModel, load
from tests.support.pictures import saved
from tests.support.pretrained import pretrained

Floats = NDArray[np.float32]
Random = np.random.Generator


def drawn(digit: NDArray[np.uint8], random: Random) -> Floats:
    """Returns how much ink covers each pixel of a square page, 0 to 1: 28×28 as it is, or larger and off the middle."""
    side = int(random.choice([28, 56, 100, 200, 400]))
    page = np.zeros((side, side), np.float32)
    size = max(28, int(side * random.uniform(0.6, 1)))
    enlarged = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    top, left = random.integers(0, side - size + 1, 2)
    page[top : top + size, left : left + size] = np.asarray(enlarged, np.float32) / 255
    return page


def mixed(ink: Floats, colour: float, ground: Floats | float) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(ink * colour + (1 - ink) * ground, 0, 255)).astype(np.uint8))


def either(ink: Floats, random: Random) -> Image.Image:
    return mixed(ink, *random.choice([(0, 255), (40, 220), (255, 0), (230, 60)]))


def frame(ink: Floats, random: Random) -> Image.Image:
    page = either(np.pad(ink, 10), random)
    width = int(random.integers(1, 11))
    ImageDraw.Draw(page).rectangle(
        (0, 0, page.width - 1, page.height - 1), outline=int(random.integers(0, 256)), width=width
    )
    return page


def cell(ink: Floats, random: Random) -> Image.Image:
    page = either(np.pad(ink, len(ink) // 4), random)
    space = int(len(ink) * random.uniform(0.03, 0.12))
    box = (space, space, page.width - space, page.height - space)
    ImageDraw.Draw(page).rectangle(box, outline=110, width=1 + len(ink) // 100)
    return page


def grain(ink: Floats, random: Random) -> Image.Image:
    page = np.asarray(either(np.pad(ink, 10), random), np.float32)
    return mixed(np.zeros_like(page), 0, page + random.normal(0, 20, page.shape).astype(np.float32))


def specks(ink: Floats, random: Random) -> Image.Image:
    ink = ink.copy()
    for _ in range(int(random.integers(1, 6))):
        y, x = random.integers(0, len(ink), 2)
        size = max(1, int(len(ink) * random.uniform(0.003, 0.02)))
        ink[y : y + size, x : x + size] = 1
    return either(ink, random)


def gradient(ink: Floats, random: Random) -> Image.Image:
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : len(ink) * 1j, -1 : 1 : len(ink) * 1j]
    slope = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    slope = (slope - slope.min()) / (slope.max() - slope.min()) * 100
    return mixed(ink, 0, 155 - random.integers(0, 60) + slope) if random.random() < 0.5 else mixed(ink, 255, slope)


def lined_paper(ink: Floats, random: Random) -> Image.Image:
    page = np.full((*ink.shape, 3), 255, np.float32)
    apart = max(4, int(len(ink) / random.integers(4, 10)))
    colour = random.choice([(120, 160, 220), (180, 180, 180), (90, 90, 90)])
    page[random.integers(0, apart) :: apart] = colour
    if len(ink) >= 200:
        page[random.integers(0, apart) + 1 :: apart] = colour
    page *= 1 - ink[..., np.newaxis] * 0.9
    return Image.fromarray(page.astype(np.uint8))


def see_through(ink: Floats, random: Random) -> Image.Image:
    colour = np.full_like(ink, random.choice([0, 255, 128]))
    if random.random() < 0.5:
        return Image.fromarray(np.stack([colour, ink * 255], axis=-1).astype(np.uint8), "LA")
    page = either(ink, random).convert("RGBA")
    around = Image.new("RGBA", (page.width * 4 // 3, page.height * 4 // 3))
    rounded = Image.new("L", page.size)
    ImageDraw.Draw(rounded).rounded_rectangle((0, 0, page.width - 1, page.height - 1), page.width // 12, fill=255)
    around.paste(page, (page.width // 6, page.height // 6), rounded)
    return around


PAGE: Final = Path(__file__).parents[1] / "docs" / "score.md"
KINDS: Final[dict[str, Callable[[Floats, Random], Image.Image]]] = {
    "black on white, 28×28": lambda ink, _: mixed(ink, 0, 255).resize((28, 28), Image.Resampling.BOX),
    "dark ink on a ground from 60 to 255": lambda ink, random: mixed(ink, 0, float(random.integers(60, 256))),
    "light ink on a ground from 0 to 200": lambda ink, random: mixed(ink, 255, float(random.integers(0, 201))),
    "a frame of 1 to 10 px": frame,
    "a form's cell": cell,
    "grain": grain,
    "up to five specks": specks,
    "a gradient of 100 levels": gradient,
    "lined paper": lined_paper,
    "see-through": see_through,
}


def read(files: list[bytes], classifier: SavedModel) -> tuple[NDArray[np.intp], float, int]:
    """Returns what each file reads as, the milliseconds that fitting took a file, and how many had no ink."""
    started = time.process_time()
    digits = [read_digit(file, max_pixels=10**8) for file in files]
    took_ms = (time.process_time() - started) / len(files) * 1000
    pixels = np.stack([digit.pixels for digit in digits])[..., np.newaxis]
    parts = [{"images": part} for part in np.array_split(pixels, len(files) // 256 + 1)]
    batches = classifier.run("serving_default", *parts)
    read_as = np.concatenate([batch["probabilities"].argmax(axis=1) for batch in batches])
    return read_as, took_ms, sum(not digit.ink for digit in digits)


def main(
    data: Annotated[Path, typer.Option(help="MNIST as Keras has it (mnist.npz).")],
    drawings: Annotated[Path | None, typer.Option(help="A folder of folders 0 to 9 of images.")] = None,
    count: Annotated[int, typer.Option(help="Drawings of each kind.")] = 1000,
) -> None:
    """Counts how many drawings are read correctly. Ends with status 1 if those are too few."""
    with np.load(data) as mnist:
        images, digits = mnist["x_test"][:count], mnist["y_test"][:count]
        every = np.concatenate([mnist["x_train"], mnist["x_test"]])
    kinds = {"MNIST's own images": ([saved(pixels) for pixels in images], digits, 0.97)}
    for name, draw in KINDS.items():
        random = np.random.default_rng(1)
        kinds[name] = ([saved(draw(drawn(pixels, random), random)) for pixels in images], digits, 0.97)
    if drawings:
        paths = sorted(path for path in drawings.glob("[0-9]/*") if path.is_file())
        named = np.array([int(path.parent.name) for path in paths])
        kinds["in the folder"] = ([path.read_bytes() for path in paths], named, 0.95)
    classifier = load(pretrained("classifier"))
    table = Table("drawings", "read right", "of", "no ink found", "ms each", box=box.MARKDOWN)
    good = True
    for name, (files, expected, bar) in kinds.items():
        read_as, took_ms, without_ink = read(files, classifier)
        right = float((read_as == expected).mean())
        good &= right >= bar
        table.add_row(name, f"{right:.1%}", f"{len(files)}", f"{without_ink}", f"{took_ms:.1f}")
    console = Console(record=True, width=100)
    console.print(table)
    if not drawings:
        lines = [line.strip() for line in console.export_text().splitlines()]
        replace_between_marks(PAGE, "benchmarks.drawings", "\n".join(filter(None, lines)))
    changed = sum(read_digit(saved(pixels), max_pixels=784).fitted for pixels in every)
    print(f"of MNIST's {len(every)} images, {changed} are not kept as they are")
    raise typer.Exit(0 if good and not changed else 1)


if __name__ == "__main__":
    typer.run(main)
