"""Requests as the gateway takes them, and answers as it gives them: the one implementation behind both clients.

Nothing here imports ``serving``: a program that uses the client may have a module of its own with that name.
"""

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from digitgan.client.errors import (
    AnswerError,
    BrokenStreamError,
    DigitganError,
    SlowAnswerError,
    UnreachableError,
    problem_in,
)
from digitgan.client.results import Digits, LabelledDigits, Model, ModelVersion, Score, Scores
from digitgan.client.retries import Outcome

URL_VARIABLE: Final = "DIGITGAN_URL"
KEY_VARIABLE: Final = "DIGITGAN_API_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8000"

JSON: Final = "application/json"
NPY: Final = "application/x-npy"
ZIP: Final = "application/zip"
FORMATS: Final = {".png": "image/png", ".zip": ZIP, ".npy": NPY, ".json": JSON}
"""What a file of digits can be, by its name's end."""

_LABELS_FILE: Final = "labels.csv"

Balance = Literal["uniform", "mnist", "natural"]
Seeds = int | Iterable[int] | NDArray[np.integer[Any]]
ImageInput = NDArray[np.uint8] | bytes | str | os.PathLike[str]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Call(Generic[_T]):
    """One request, and how its answer is read. ``read`` gets an answer whose status is 200 and whose body is there."""

    method: str
    path: str
    read: Callable[[httpx.Response], _T]
    content: dict[str, Any] = field(default_factory=dict)
    accept: str = JSON

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return http.build_request(self.method, self.path, headers={"Accept": self.accept}, **self.content)

    def answer(self, response: httpx.Response) -> _T:
        """Returns the answer. Raises AnswerError if it isn't one of a digitgan gateway."""
        try:
            return self.read(response)
        except DigitganError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
            raise AnswerError(f"{response.url} answers, but not as this client's digitgan gateway: {error}") from error


def base_url(url: str | None) -> str:
    """Returns the gateway's address: ``url``, or what DIGITGAN_URL says, or the default.

    Raises ValueError if it isn't an http address.
    """
    found = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
    if not found.startswith(("http://", "https://")):
        raise ValueError(f"{found!r} should begin with http:// or https://")
    return found


def headers(api_key: str | None, timeout_s: float) -> dict[str, str]:
    """Returns the header fields of every request. Raises ValueError for a key that can't be one."""
    return {"Request-Timeout": f"{min(max(timeout_s, 0.001), 999_999):.3f}"} | authorization(api_key)


def authorization(api_key: str | None) -> dict[str, str]:
    """Returns the header field for ``api_key``, or for what DIGITGAN_API_KEY says; nothing without a key.

    Raises ValueError if it can't be a key.
    """
    key = (api_key or os.environ.get(KEY_VARIABLE) or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("the API key should be of printable ASCII characters, as digitgan key prints it")
    return {"Authorization": f"Bearer {key}"} if key else {}


def checked(outcome: Outcome, url: str) -> httpx.Response:
    """Returns an answer whose status is 200; raises the DigitganError that any other outcome is."""
    if isinstance(outcome, httpx.TimeoutException):
        raise SlowAnswerError(f"{url} didn't answer in time ({type(outcome).__name__})") from outcome
    if isinstance(outcome, httpx.TransportError):
        raise UnreachableError(f"{url} can't be reached: {outcome or type(outcome).__name__}") from outcome
    if not outcome.is_success:
        raise problem_in(outcome)
    return outcome


def broken(error: httpx.TransportError, url: httpx.URL | str) -> DigitganError:
    """Returns what it means that an answer's body ended with ``error``."""
    if isinstance(error, httpx.TimeoutException):
        return SlowAnswerError(f"{url}: the answer stopped coming ({type(error).__name__})")
    return BrokenStreamError(f"{url}: the answer broke off: {error or type(error).__name__}")


# POST /generate


def generate_body(
    count: int | None,
    *,
    seeds: Seeds | None,
    noise: ArrayLike | None,
    digit: int | None,
    curated: bool,
    version: int | None,
    scale: int,
) -> dict[str, Any]:
    """Returns the body of POST /generate; without a source it asks for one digit."""
    if seeds is not None:
        several = [seeds] if isinstance(seeds, int | np.integer) else seeds
        body: dict[str, Any] = {"seeds": [int(seed) for seed in several]}
    elif noise is not None:
        body = {"noise": np.atleast_2d(np.asarray(noise, np.float32)).tolist()}
    else:
        body = {}
    if count is not None or not body:
        body["count"] = 1 if count is None else count
    optional = {"digit": digit, "curated": curated or None, "version": version, "scale": None if scale == 1 else scale}
    return body | {name: value for name, value in optional.items() if value is not None}


def generate(body: dict[str, Any], *, labels: bool) -> Call[Digits]:
    """Returns the call for digits as arrays: as npy where pixels are all that is wanted, as zip with labels."""
    if not (labels or "digit" in body or "curated" in body):
        return Call("POST", "/generate", lambda response: _from_npy(response, body), {"json": body}, NPY)
    return Call("POST", "/generate", _from_zip, {"json": body | {"labels": True}}, ZIP)


def save(path: Path, body: dict[str, Any], *, labels: bool) -> Call[tuple[str, int]]:
    """Returns the call for a file of digits, whose format ``path`` tells; it reads model and version.

    Raises ValueError for a name that ends otherwise.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path} should end in one of {', '.join(FORMATS)}")
    asked = body | {"labels": True} if labels else body
    return Call("POST", "/generate", _maker, {"json": asked}, FORMATS[suffix])


def _maker(response: httpx.Response) -> tuple[str, int]:
    if "X-Model" not in response.headers:
        raise ValueError("it doesn't name its model")
    return response.headers["X-Model"], int(response.headers["X-Model-Version"])


def _from_npy(response: httpx.Response, body: dict[str, Any]) -> Digits:
    model, version = _maker(response)
    pixels = np.load(io.BytesIO(response.content), allow_pickle=False)
    if "noise" in body:
        seeds = None
    elif "seeds" in body:
        seeds = np.array(body["seeds"], np.uint64)
    else:
        first, _, last = response.headers["X-Seeds"].partition("-")
        seeds = np.arange(int(first), int(last or first) + 1, dtype=np.uint64)
    return Digits(pixels, seeds, None, None, model, version)


def _from_zip(response: httpx.Response) -> Digits:
    model, version = _maker(response)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        table = list(csv.DictReader(io.StringIO(archive.read(_LABELS_FILE).decode())))
        pixels = np.stack([_pixels(archive.read(row["file"])) for row in table])
    return Digits(
        pixels,
        np.array([int(row["seed"]) for row in table], np.uint64) if table[0]["seed"] else None,
        np.array([int(row["digit"]) for row in table], np.uint8),
        np.array([float(row["confidence"]) for row in table], np.float32),
        model,
        version,
    )


def _pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)


# POST /score


def score(images: ImageInput | Sequence[ImageInput], *, labels: bool = False) -> Call[Scores]:
    """Returns the call that scores images: arrays uint8 [H, W] or [N, H, W], and files by content or path.

    Raises ValueError for an array of another kind, OSError for a file that can't be read.
    """
    if isinstance(images, np.ndarray) and images.ndim == 3:
        images = list(images)
    several = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    files = [("images", (f"{index}", _file(image))) for index, image in enumerate(several)]
    if not files:
        raise ValueError("there is no image to score")
    return Call("POST", "/score", _scores, {"files": files, "data": {"labels": "true"} if labels else {}})


def _file(image: ImageInput) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 2:
            raise ValueError(f"images should be uint8 [H, W] or [N, H, W], not {image.dtype} {list(image.shape)}")
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        return file.getvalue()
    return Path(image).read_bytes()


def _scores(response: httpx.Response) -> Scores:
    content = response.json()
    scores = tuple(
        Score(
            float(one["probability"]),
            float(one["logit"]),
            one["verdict"],
            bool(one["fitted"]),
            one.get("digit"),
            one.get("confidence"),
        )
        for one in content["scores"]
    )
    return Scores(scores, content["model"], content["version"])


# GET /models, GET /healthz/ready


def models() -> Call[tuple[Model, ...]]:
    """Returns the call for the models and their cards."""
    return Call("GET", "/models", _models)


def _models(response: httpx.Response) -> tuple[Model, ...]:
    return tuple(
        Model(
            model["name"],
            tuple(ModelVersion(one["version"], one["state"], one["card"]) for one in model["versions"]),
        )
        for model in response.json()["models"]
    )


def ready() -> Call[bool]:
    """Returns the call that asks whether the gateway is ready; it reads True."""
    return Call("GET", "/healthz/ready", lambda response: bool(response.json()["status"] == "ready"))


# POST /dataset


def dataset(
    count: int,
    *,
    balance: Balance | None,
    quotas: Sequence[int] | None,
    confidence_floor: float | None,
    logit_floor: float | None,
    first_seed: int,
    version: int | None,
    scale: int,
) -> Call["RecordReader"]:
    """Returns the call for labelled digits; the reader takes the answer's body as it comes."""
    optional = {
        "balance": balance,
        "quotas": None if quotas is None else [int(one) for one in quotas],
        "confidence_floor": confidence_floor,
        "logit_floor": logit_floor,
        "version": version,
        "scale": None if scale == 1 else scale,
    }
    body = {"count": count, "first_seed": first_seed} | {
        name: value for name, value in optional.items() if value is not None
    }
    return Call("POST", "/dataset", lambda response: RecordReader(response, count, scale), {"json": body}, NPY)


def _record(scale: int) -> np.dtype[np.void]:
    """Returns the dtype of one digit in an answer of POST /dataset (``docs/http.md``)."""
    side = 28 * scale
    return np.dtype(
        [("seed", "<u8"), ("digit", "u1"), ("confidence", "<f4"), ("logit", "<f4"), ("pixels", "u1", (side, side))]
    )


class RecordReader:
    """Reads an ``.npy`` file of records piece by piece."""

    def __init__(self, response: httpx.Response, count: int, scale: int) -> None:
        headers = response.headers
        self._versions = {
            "generator": int(headers["X-Model-Version"]),
            "classifier": int(headers["X-Classifier-Version"]),
            "discriminator": int(headers["X-Discriminator-Version"]),
        }
        self._url = response.url
        self._left = count
        self._dtype = _record(scale)
        self._rest = b""
        self._head = True

    def feed(self, chunk: bytes) -> LabelledDigits | None:
        """Returns the digits that are complete with ``chunk``, None if there are none. Raises AnswerError."""
        self._rest += chunk
        if self._head and not self._read_head():
            return None
        whole = len(self._rest) // self._dtype.itemsize
        if not whole:
            return None
        size = whole * self._dtype.itemsize
        records = np.frombuffer(self._rest[:size], self._dtype)
        self._rest = self._rest[size:]
        self._left -= whole
        return LabelledDigits(
            records["pixels"],
            records["seed"],
            records["digit"],
            records["confidence"],
            records["logit"],
            self._versions,
        )

    def finish(self) -> None:
        """Raises BrokenStreamError if digits are missing."""
        if self._left or self._rest:
            raise BrokenStreamError(f"{self._url}: the answer broke off, {self._left} digits before its end")

    def _read_head(self) -> bool:
        if len(self._rest) < 10 or len(self._rest) < 10 + int.from_bytes(self._rest[8:10], "little"):
            return False
        file = io.BytesIO(self._rest)
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("not an .npy file of version 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype != self._dtype or shape != (self._left,):
                raise ValueError(f"{list(shape)} records of {dtype}, not {[self._left]} of {self._dtype}")
        except ValueError as error:
            raise AnswerError(f"{self._url} answers, but not as this client's digitgan gateway: {error}") from error
        self._rest = self._rest[file.tell() :]
        self._head = False
        return True
