"""The client: arrays in, arrays out; and a server that refuses, fails, is away, or isn't a gateway at all."""

import asyncio
import gc
import json
import signal
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import digitgan
from api.http import problems
from digitgan import client as library
from digitgan.client import AsyncClient, Client, InvalidRequestError, VersionNotFoundError
from serving.noise import noise_from_seeds
from tests.support import commands
from tests.support.pictures import pixels_of
from tests.support.pretrained import VERSIONS
from tests.support.servers import Answer, ScriptedServer, problem, serving


def test_what_is_public_is_listed() -> None:
    for module in (digitgan, library):
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert all(getattr(module, name).__doc__ for name in module.__all__)
    assert set(digitgan.__all__) <= set(library.__all__)


def test_seeds_give_their_digits(client: Any) -> None:
    digits = client.generate(seeds=[3, 2**53 - 1, 3])
    assert (digits.pixels.shape, digits.pixels.dtype) == ((3, 28, 28), np.uint8)
    assert (digits.seeds.tolist(), digits.seeds.dtype) == ([3, 2**53 - 1, 3], np.uint64)
    assert (digits.model, digits.version, digits.labels, digits.confidences) == ("generator", 3, None, None)
    assert np.array_equal(digits.pixels[0], digits.pixels[2])
    for seeds in (3, np.array([3]), range(3, 4)):
        assert np.array_equal(client.generate(seeds=seeds, scale=np.uint8(1)).pixels, digits.pixels[:1])
    with pytest.raises(InvalidRequestError, match="/seeds/0: Input should be a valid integer"):
        client.generate(seeds=[3.5])


def test_noise_gives_the_digit_of_its_seed_and_has_none(client: Any) -> None:
    digits = client.generate(noise=noise_from_seeds([3, 4]), labels=True)
    by_seed = client.generate(seeds=[3, 4], labels=True)
    assert digits.seeds is None
    assert np.array_equal(digits.pixels, by_seed.pixels)
    assert np.array_equal(digits.labels, by_seed.labels)
    with pytest.raises(InvalidRequestError, match="/noise/0/0: Input should be a finite number"):
        client.generate(noise=[np.nan] * 100)


@pytest.mark.parametrize("options", [{}, {"labels": True}, {"digit": 7}, {"curated": True}])
def test_chosen_seeds_are_told(client: Any, options: dict[str, object]) -> None:
    digits = client.generate(20, **options)
    assert len(digits) == len(digits.seeds) == 20
    assert np.array_equal(client.generate(seeds=digits.seeds).pixels, digits.pixels)
    if options:
        assert (digits.labels.dtype, digits.confidences.dtype) == (np.uint8, np.float32)
        assert "digit" not in options or set(digits.labels) == {7}
    assert len(client.generate()) == 1


def test_scale_and_version(client: Client) -> None:
    digits = client.generate(seeds=[5], scale=3, version=3)
    assert np.array_equal(digits.pixels[:, ::3, ::3], client.generate(seeds=5).pixels)
    with pytest.raises(VersionNotFoundError, match="no version 9"):
        client.generate(version=9)


def test_a_file_is_what_the_gateway_makes(client: Client, tmp_path: Path) -> None:
    png, archive, npy, document = files = [tmp_path / f"digits{suffix}" for suffix in (".png", ".zip", ".npy", ".json")]
    for path in files:
        saved = client.save(path, seeds=range(4), scale=2)
        assert (saved.path, saved.model, saved.version) == (path, "generator", 3)
    expected = client.generate(seeds=range(4), scale=2).pixels
    assert pixels_of(png.read_bytes()).shape == (2 * (2 * 30 + 2), 2 * (2 * 30 + 2))
    with zipfile.ZipFile(archive) as images:
        assert np.array_equal([pixels_of(images.read(name)) for name in images.namelist()], expected)
    assert np.array_equal(np.load(npy), expected)
    assert [image["seed"] for image in json.loads(document.read_text())["images"]] == [0, 1, 2, 3]
    with pytest.raises(InvalidRequestError):
        client.save(tmp_path / "none.png", seeds=[-1])
    with pytest.raises(ValueError, match="should end in"):
        client.save(tmp_path / "none.gif", 3)
    assert set(tmp_path.iterdir()) == set(files)


def test_images_are_scored_as_arrays_and_as_files(client: Client, tmp_path: Path) -> None:
    digits = client.generate(seeds=range(5)).pixels
    scores = client.score(digits)
    assert (len(scores), scores.model, scores.version) == (5, "discriminator", 4)
    assert scores.probabilities.shape == scores.logits.shape == (5,)
    assert [one.verdict == "real" for one in scores.scores] == (scores.probabilities > 0.5).tolist()
    assert not any(one.fitted for one in scores.scores)
    path = tmp_path / "3.png"
    client.save(path, seeds=3)
    for image in (digits[3], path, str(path), path.read_bytes(), [path]):
        assert client.score(image).logits == pytest.approx(scores.logits[3:4], abs=1e-3)
    assert client.score(digits[3].repeat(4, 0).repeat(4, 1)).scores[0].fitted
    wrongs: tuple[Any, ...] = (digits / 255, digits[0, 0], [])
    for wrong in wrongs:
        with pytest.raises(ValueError):
            client.score(wrong)


def test_a_dataset_comes_in_parts(client: Any) -> None:
    parts = list(client.dataset(500, balance="mnist", confidence_floor=0.95, scale=2, first_seed=np.uint64(0)))
    assert sum(map(len, parts)) == 500
    assert {tuple(part.versions.items()) for part in parts} == {
        (("generator", 3), ("classifier", 1), ("discriminator", 4))
    }
    seeds = np.concatenate([part.seeds for part in parts])
    assert (np.diff(seeds.astype(np.int64)) > 0).all()
    again = client.generate(seeds=seeds, labels=True, scale=2)
    assert np.array_equal(np.concatenate([part.pixels for part in parts]), again.pixels)
    assert np.array_equal(np.concatenate([part.labels for part in parts]), again.labels)
    confidences = np.concatenate([part.confidences for part in parts])
    assert confidences.min() >= 0.95
    assert np.allclose(confidences, again.confidences, atol=1e-6)
    first = parts[0]
    logits = client.score(first.pixels[:8, ::2, ::2]).logits
    assert first.logits[:8] == pytest.approx(logits[: len(first)], abs=1e-3)


def test_the_models_and_readiness(client: Client) -> None:
    models = client.models()
    assert {model.name for model in models} == {"generator", "discriminator", "classifier"}
    for model in models:
        assert (model.versions[0].version, model.versions[0].state) == (VERSIONS[model.name], "AVAILABLE")
        assert model.versions[0].card
    assert client.ready()


def test_both_clients_work_where_an_event_loop_runs(url: str) -> None:
    """As in a notebook. ``Client`` calls the methods of ``AsyncClient``."""

    async def cell() -> None:
        with Client(url) as client:
            digits = client.generate(seeds=range(3))
        async with AsyncClient(url) as client_with_await:
            assert np.array_equal((await client_with_await.generate(seeds=range(3))).pixels, digits.pixels)
            assert sum([len(part) async for part in client_with_await.dataset(50)]) == 50

    asyncio.run(cell())


def test_a_client_that_is_not_closed_lets_the_program_end(url: str) -> None:
    code = f"from digitgan import Client; client = Client({url!r}); print(client.ready())"
    done = commands.python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_an_iterator_that_the_garbage_collector_closes_in_the_clients_own_thread_blocks_nothing(url: str) -> None:
    def seeds() -> Iterator[int]:  # The client reads them where it sends requests, in its own thread.
        gc.collect()
        yield 7

    with Client(url) as client:
        left: dict[str, Any] = {"parts": client.dataset(5000)}
        next(left["parts"])
        left["itself"] = left
        gc.disable()
        try:
            del left
            assert len(client.generate(seeds=seeds())) == 1
        finally:
            gc.enable()
        assert client.ready()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Gives prepared answers."""
    with serving(ScriptedServer()) as server:
        yield server


KINDS: dict[str | int, type[library.ProblemError]] = {
    "invalid-request": library.InvalidRequestError,
    "version-not-found": library.VersionNotFoundError,
    "no-seed-index": library.NoSeedIndexError,
    503: library.UnavailableError,
    4: library.RefusedError,
    5: library.ServiceError,
}
"""By the type of the problem, or else by its status, or else by the first digit of that."""


@pytest.mark.parametrize("kind", problems.TYPES, ids=lambda kind: kind.slug)
def test_every_problem_is_an_exception_of_its_kind(server: ScriptedServer, kind: problems.ProblemType) -> None:
    errors = [{"pointer": "/seeds/3", "detail": "no"}, {"parameter": "scale", "detail": "no"}]
    server.answers = [problem(kind.status, kind.slug, errors=errors)]
    with Client(server.url, retry_s=0) as client, pytest.raises(library.ProblemError) as caught:
        client.models()
    error = caught.value
    assert type(error) is KINDS.get(kind.slug, KINDS.get(kind.status, KINDS[kind.status // 100]))
    assert (error.type, error.status, error.detail) == (kind.uri, kind.status, "on purpose")
    assert [one.place for one in error.errors] == ["/seeds/3", "scale"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
        Answer(404, b"<html>", {"Content-Type": "text/html"}),
        Answer(503, b"{}", {"Content-Type": "application/problem+json"}),
        Answer(200, b"[]"),
        Answer(200, b"{}"),
    ],
)
def test_something_else_at_the_address_is_told(server: ScriptedServer, answer: Answer, tmp_path: Path) -> None:
    server.answers = [answer]
    with Client(server.url, retry_s=0) as client:
        for call in (
            client.models,
            client.ready,
            lambda: client.generate(3),
            lambda: client.generate(3, labels=True),
            lambda: client.score(b"x"),
            lambda: list(client.dataset(3)),
            lambda: client.save(tmp_path / "x.zip", 3),
        ):
            with pytest.raises(library.AnswerError, match="not as"):
                call()
    assert not list(tmp_path.iterdir())


def test_an_unreachable_gateway() -> None:
    with Client("http://127.0.0.1:9", retry_s=0) as client:
        with pytest.raises(library.UnreachableError, match=r"127\.0\.0\.1:9"):
            client.models()
        assert not client.ready()


def test_an_answer_that_does_not_come_in_time(server: ScriptedServer) -> None:
    held = threading.Event()
    server.answers = [Answer(after=held), Answer(body=b'{"models":[]}')]
    with Client(server.url, timeout_s=0.2) as client, pytest.raises(library.SlowAnswerError):
        client.models()  # A second call would be answered.
    held.set()


def test_ctrl_c_just_when_a_request_begins(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when the loop has the request already, and the calling thread does not wait for it yet."""
    held = threading.Event()
    server.answers = [Answer(after=held)]
    with Client(server.url) as client:
        hand_over = client._loop.call_soon_threadsafe

        def interrupted(*arguments: Any) -> None:
            monkeypatch.undo()
            hand_over(*arguments)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(client._loop, "call_soon_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(client.dataset(10))
    held.set()


def test_a_broken_connection_is_opened_again_and_retry_after_is_kept_to(server: ScriptedServer) -> None:
    overloaded = problem(503, "overloaded", {"Retry-After": "1"})
    server.answers = [Answer(None), Answer(None), overloaded, Answer(body=b'{"models":[]}')]
    with Client(server.url) as client:
        assert client.models() == ()
    *broken, refused, answered = server.times
    assert len(broken) == 2
    assert answered >= refused + 1
    assert server.connections == 3, "one that is not broken is used again"


@pytest.mark.parametrize(
    ("status", "slug", "retry_after", "requests"),
    [
        (503, "overloaded", "0", 11),
        (429, "rate-limited", "0", 11),
        pytest.param(503, "overloaded", "60", 1, id="a wait beyond the budget is not begun"),
        (422, "invalid-request", "0", 1),
        (500, "internal-error", "0", 1),
        (504, "timeout", "0", 1),
    ],
)
def test_only_what_can_get_better_is_sent_again_within_the_budget(
    server: ScriptedServer, status: int, slug: str, retry_after: str, requests: int
) -> None:
    server.answers = [problem(status, slug, {"Retry-After": retry_after})]
    with Client(server.url, retry_s=1) as client, pytest.raises(library.ProblemError) as caught:
        client.models()
    assert caught.value.retry_after_s == float(retry_after)
    assert len(server.times) == requests


def test_a_file_that_breaks_off_is_not_left_behind(server: ScriptedServer, tmp_path: Path) -> None:
    headers = {"X-Model": "generator", "X-Model-Version": "1", "Content-Length": "100"}
    server.answers = [Answer(200, b"half", headers)]
    with Client(server.url, retry_s=0) as client, pytest.raises(library.BrokenStreamError):
        client.save(tmp_path / "digits.npy", 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"), [({"url": "localhost:8000"}, "http://"), ({"api_key": "schlüssel"}, "API key")]
)
def test_what_can_be_no_address_and_no_key_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(**options)
