"""What the client does when a server refuses, fails, is away, or isn't a gateway at all."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from api.http import problems
from digitgan import Client
from digitgan import client as library
from tests.support.servers import Answer, ScriptedServer, problem

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
