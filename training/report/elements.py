"""Pieces of an HTML page, built as a tree, so that every text is escaped by the library that writes it."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from xml.etree.ElementTree import Element, tostring

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.samples import sheet

Child = Element | str


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """An element with its children in order. In attributes _ stands for a hyphen, or last for nothing."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def html(elements: Sequence[Element]) -> str:
    """The elements as HTML."""
    return "\n".join(tostring(each, encoding="unicode", method="html") for each in elements)


def paragraph(*children: Child, **attributes: str) -> Element:
    """Text."""
    return element("p", *children, **attributes)


def missing(what: str, command: str) -> Element:
    """A place that is empty as yet: what is missing, and the command that makes it."""
    return paragraph(f"{what} ", element("code", command), " makes it.", class_="missing")


def image(png: bytes, alt: str, **attributes: str) -> Element:
    """A PNG, inside the page itself."""
    return element("img", src="data:image/png;base64," + b64encode(png).decode(), alt=alt, **attributes)


def plot(png: bytes, alt: str, caption: str) -> Element:
    """A plot with its caption, on a white card."""
    return element("figure", image(png, alt), element("figcaption", caption), class_="plot")


def digits(images: NDArray[np.uint8], columns: int, alt: str, **attributes: str) -> Element:
    """Digits side by side in rows, a pixel of theirs a pixel of the image. ``images``: uint8 [N, 28, 28]."""
    png = BytesIO()
    Image.fromarray(sheet(images, columns)).save(png, format="PNG", optimize=True)
    return image(png.getvalue(), alt, **attributes)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Child]], **attributes: str) -> Element:
    """A table whose first column names its rows; it scrolls sideways where a page is too narrow."""
    body = (
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    )
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", name, scope="col") for name in head))),
        element("tbody", *body),
        **attributes,
    )
    return element("div", whole, class_="scroll", tabindex="0", role="group", aria_label=caption)


def mark(met: bool | None) -> Child:
    """Whether a target is met: a tick or a cross with the word for those who don't see it."""
    if met is None:
        return "–"
    sign, word, kind = ("✓", "met", "met") if met else ("✗", "missed", "missed")
    return element(
        "span", element("span", sign, aria_hidden="true"), element("span", f" {word}", class_="word"), class_=kind
    )
