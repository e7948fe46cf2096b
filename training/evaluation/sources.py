"""Where the digits of an evaluation come from: a run, a directory of models, or a gateway."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import (
    DISCRIMINATOR,
    GENERATOR,
    IMAGE_SHAPE,
    IMAGE_SIDE,
    IMAGES,
    LOGITS,
    NOISE,
    PIXEL_SCALE,
    PROBABILITIES,
    SIGNATURE,
)
from serving.model_card import CardError, read_card
from serving.noise import noise_from_seeds
from serving.storage import find_versions
from training.config import CONFIG_FILE, TrainingConfig

Images = NDArray[np.uint8]
Generate = Callable[[NDArray[np.float32]], Images]
OfSeeds = Callable[[range], Images]
Score = Callable[[Images], tuple[NDArray[np.float32], NDArray[np.float32]]]

BATCH: Final = 256
MODELS: Final = "models"
TIMEOUT_S: Final = 60.0
_URL: Final = ("http://", "https://")


class SourceError(ValueError):
    """There is nothing to evaluate at a source. The message names it and says what is looked for."""


@dataclass(frozen=True)
class Source:
    """A generator to evaluate.

    Attributes:
        facts: what an evaluation tells about it: ``kind`` ("run", "checkpoint", "models" or "url"), ``version``,
            ``preset`` and ``steps``; null for what isn't known.
        of_seeds: from seeds to their images, uint8 [N, 28, 28].
        generate: from noise float32 [N, 100] to images uint8 [N, 28, 28].
        score: from images uint8 [N, 28, 28] to logits and probabilities of being real, float32 [N] each; None where
            there is no discriminator.
        run: the run directory, if the source is one.
        version_dir: the generator's version directory, if it is a local SavedModel.
    """

    facts: dict[str, Any]
    of_seeds: OfSeeds
    generate: Generate
    score: Score | None = None
    run: Path | None = None
    version_dir: Path | None = None

    def images(self, count: int, advance: Callable[[int], None] = lambda _: None) -> Images:
        """The images of the seeds 0 … count-1, uint8 [count, 28, 28]; ``advance`` is told how many more are made."""
        parts = []
        for first in range(0, count, BATCH):
            parts.append(self.of_seeds(range(first, min(first + BATCH, count))))
            advance(len(parts[-1]))
        return np.concatenate(parts)


@contextmanager
def open_source(name: str) -> Iterator[Source]:
    """Opens, for a block, what a user names: a run directory, a base directory of models, or a gateway's URL.

    A run stands for the newest of its models, or for its last checkpoint where it has none yet.

    Raises:
        SourceError: there is nothing of the kind, or the gateway doesn't answer.
        training.config.ConfigError: the run can't be read, or has no checkpoint yet.
    """
    if name.startswith(_URL):
        with httpx.Client(base_url=name.rstrip("/"), timeout=TIMEOUT_S) as client:
            yield _from_gateway(client)
    else:
        yield _from_directory(name)


def _from_directory(name: str) -> Source:
    path = Path(name)
    if (path / CONFIG_FILE).is_file():
        if _newest(path / MODELS / GENERATOR):
            return _from_models(path / MODELS, kind="run", run=path)
        return _from_checkpoint(path)
    if not _newest(path / GENERATOR):
        raise SourceError(
            f"{name} is no run directory ({CONFIG_FILE} is looked for), no directory of models "
            f"({GENERATOR}/<version>/saved_model.pb) and no http:// address"
        )
    return _from_models(path, kind="models", run=None)


def _newest(model_base: Path) -> Path | None:
    found = find_versions(model_base) if model_base.is_dir() else {}
    return found[max(found)].path if found else None


def _from_models(models: Path, *, kind: str, run: Path | None) -> Source:
    version_dir = _newest(models / GENERATOR)
    assert version_dir is not None
    generator = _load(version_dir)

    def generate(noise: NDArray[np.float32]) -> Images:
        return _squeezed(generator(**{NOISE: tf.constant(noise)})[IMAGES].numpy())

    discriminator_dir = _newest(models / DISCRIMINATOR)
    return Source(
        _facts(kind, int(version_dir.name), _card(version_dir)),
        _through_noise(generate),
        generate,
        _saved_score(discriminator_dir) if discriminator_dir else None,
        run,
        version_dir,
    )


def _load(version_dir: Path) -> Any:
    """The serving signature of a SavedModel, which stays alive with it."""
    try:
        saved = tf.saved_model.load(str(version_dir))
    except OSError as error:
        raise SourceError(f"{version_dir} holds no model that can be loaded: {error}") from error
    signature = saved.signatures[SIGNATURE]
    signature.kept_alive = saved  # A signature alone doesn't hold its model's resources.
    return signature


def _saved_score(version_dir: Path) -> Score:
    discriminator = _load(version_dir)

    def score(images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shaped = images.reshape(-1, *IMAGE_SHAPE)
        answers = [discriminator(**{IMAGES: tf.constant(shaped[k : k + BATCH])}) for k in range(0, len(shaped), BATCH)]
        logits, probabilities = (
            np.concatenate([answer[name].numpy() for answer in answers]) for name in (LOGITS, PROBABILITIES)
        )
        return logits, probabilities

    return score


def _from_checkpoint(run: Path) -> Source:
    from training import devices, loop
    from training.samples import pixels

    config = TrainingConfig.read(run)
    trainer = loop.restore(config, run, devices.strategy())
    generator, discriminator = trainer.averaged_generator(), trainer.last_discriminator()

    def generate(noise: NDArray[np.float32]) -> Images:
        return _squeezed(pixels(np.asarray(generator(noise, training=False))))

    def score(images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scaled = images.reshape(-1, *IMAGE_SHAPE) / np.float32(PIXEL_SCALE) - 1
        batches = [discriminator(scaled[k : k + BATCH], training=False) for k in range(0, len(scaled), BATCH)]
        logits = tf.concat(batches, axis=0)[:, 0]
        return logits.numpy(), tf.sigmoid(logits).numpy()

    facts = {"kind": "checkpoint", "version": None, "preset": config.preset, "steps": trainer.step}
    return Source(facts, _through_noise(generate), generate, score, run)


def _through_noise(generate: Generate) -> OfSeeds:
    return lambda seeds: generate(noise_from_seeds(seeds))


def _from_gateway(client: httpx.Client) -> Source:
    first = _post(client, {"seeds": [0]})
    model, version = first.headers.get("X-Model"), first.headers.get("X-Model-Version", "")
    if not model or not version.isdecimal():
        raise SourceError(
            f"{client.base_url} answers, but not as a digitgan gateway: X-Model and X-Model-Version are missing"
        )

    def ask(body: dict[str, Any]) -> Images:
        # Always the same version, whatever is published meanwhile.
        answer = _post(client, {**body, "version": int(version)})
        return np.asarray(np.load(io.BytesIO(answer.content), allow_pickle=False), np.uint8)

    return Source(
        _facts("url", int(version), _gateways_card(client, model, int(version))),
        of_seeds=lambda seeds: ask({"seeds": list(seeds)}),
        generate=lambda noise: ask({"noise": noise.tolist()}),
    )


def _post(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    try:
        answer = client.post("/generate", json=body, headers={"Accept": "application/x-npy"})
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise SourceError(f"{client.base_url}: {error.response.status_code}: {error.response.text[:500]}") from error
    except httpx.HTTPError as error:
        raise SourceError(f"{client.base_url} doesn't answer: {error}") from error
    return answer


def _gateways_card(client: httpx.Client, model: str, version: int) -> dict[str, Any]:
    """The model card of a gateway's generator; empty where it shows none."""
    try:
        answer = client.get("/models").raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}
    cards = [
        one.get("card") or {}
        for entry in answer.get("models", [])
        if entry.get("name") == model
        for one in entry.get("versions", [])
        if one.get("version") == version
    ]
    return cards[0] if cards else {}


def _card(version_dir: Path) -> dict[str, Any]:
    try:
        return read_card(version_dir)
    except CardError:
        return {}


def _facts(kind: str, version: int, card: dict[str, Any]) -> dict[str, Any]:
    training = card.get("training") or {}
    return {"kind": kind, "version": version, "preset": training.get("preset"), "steps": training.get("steps")}


def _squeezed(images: NDArray[np.uint8]) -> Images:
    return images.reshape(-1, IMAGE_SIDE, IMAGE_SIDE)
