"""What the client does when a server refuses, fails, is away, or isn't a gateway at all."""

import threading
from pathlib import Path

import httpx
import pytest

from api.http import problems
from digitgan.client import (
    AnswerError,
    BrokenStreamError,
    Client,
    InvalidRequestError,
    NoSeedIndexError,
    ProblemError,
    RefusedError,
    ServiceError,
    SlowAnswerError,
    UnavailableError,
    UnreachableError,
    VersionNotFoundError,
)
from digitgan.client.retries import Retries
from tests.digitgan.talker import Answer, Talker, problem

KINDS: dict[str, type[ProblemError]] = {
    "invalid-request": InvalidRequestError,
    "version-not-found": VersionNotFoundError,
    "no-seed-index": NoSeedIndexError,
}


@pytest.mark.parametrize("kind", problems.TYPES, ids=lambda kind: kind.slug)
def test_every_problem_is_an_exception_of_its_kind(talker: Talker, kind: problems.ProblemType) -> None:
    errors = [{"pointer": "/seeds/3", "detail": "no"}, {"parameter": "scale", "detail": "no"}]
    talker.answers = [problem(kind.status, kind.slug, errors=errors)]
    with Client(talker.url, retry_s=0) as client, pytest.raises(ProblemError) as caught:
        client.models()
    error = caught.value
    family = UnavailableError if kind.status == 503 else ServiceError if kind.status >= 500 else RefusedError
    assert type(error) is KINDS.get(kind.slug, family)
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
def test_something_else_at_the_address_is_told(talker: Talker, answer: Answer, tmp_path: Path) -> None:
    talker.answers = [answer]
    with Client(talker.url, retry_s=0) as client:
        for call in (
            client.models,
            client.ready,
            lambda: client.generate(3),
            lambda: client.generate(3, labels=True),
            lambda: client.score(b"x"),
            lambda: list(client.dataset(3)),
            lambda: client.save(tmp_path / "x.zip", 3),
        ):
            with pytest.raises(AnswerError, match="not as"):
                call()
    assert not list(tmp_path.iterdir())


def test_an_unreachable_gateway() -> None:
    with Client("http://127.0.0.1:9", retry_s=0) as client:
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
            client.models()
        assert not client.ready()


def test_an_answer_that_does_not_come_in_time(talker: Talker) -> None:
    held = threading.Event()
    talker.answers = [Answer(after=held)]
    with Client(talker.url, timeout_s=0.2) as client, pytest.raises(SlowAnswerError):
        client.models()
    held.set()
    assert len(talker.asked) == 1, "a time-out isn't repeated"


def test_retry_after_is_kept_to(talker: Talker) -> None:
    """The server refuses for a second: a client that came back earlier would be refused again."""
    refusal = problem(503, "overloaded", {"Retry-After": "1"})
    refusal.lasts_s = 1
    talker.answers = [refusal, Answer(body=b'{"models":[]}')]
    with Client(talker.url) as client:
        assert client.models() == ()
    assert len(talker.asked) == 2
    assert talker.connections == 1, "the connection is used again"


def test_a_wait_beyond_the_budget_is_not_begun(talker: Talker) -> None:
    talker.answers = [problem(503, "overloaded", {"Retry-After": "60"})]
    with Client(talker.url, retry_s=10) as client, pytest.raises(UnavailableError) as caught:
        client.generate(1)
    assert caught.value.retry_after_s == 60
    assert len(talker.asked) == 1


def test_a_connection_that_breaks_is_opened_again(talker: Talker) -> None:
    talker.answers = [Answer(None), Answer(None), Answer(body=b'{"models":[]}')]
    with Client(talker.url) as client:
        assert client.models() == ()
    assert len(talker.asked) == 3


@pytest.mark.parametrize(("status", "slug"), [(422, "invalid-request"), (500, "internal-error"), (504, "timeout")])
def test_what_cannot_get_better_is_asked_once(talker: Talker, status: int, slug: str) -> None:
    talker.answers = [problem(status, slug, {"Retry-After": "0"})]
    with Client(talker.url) as client, pytest.raises(ProblemError):
        client.models()
    assert len(talker.asked) == 1


def test_a_file_that_breaks_off_is_not_left_behind(talker: Talker, tmp_path: Path) -> None:
    headers = {"X-Model": "generator", "X-Model-Version": "1", "Content-Length": "100"}
    talker.answers = [Answer(200, b"half", headers)]
    with Client(talker.url, retry_s=0) as client, pytest.raises(BrokenStreamError):
        client.save(tmp_path / "digits.npy", 3)
    assert not list(tmp_path.iterdir())


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        Client("localhost:8000")


def test_pauses_grow_and_end_with_the_budget() -> None:
    failure = httpx.ConnectError("refused")
    retries, pauses = Retries(10), []
    while (pause := retries.pause_s(failure)) is not None:
        pauses.append(pause)
    assert 4 <= len(pauses) <= 10
    assert sum(pauses) <= 10
    assert all(0.05 * 2**turn <= pause <= 0.1 * 2**turn for turn, pause in enumerate(pauses[:5]))
    assert Retries(0).pause_s(failure) is None
    at_once = Retries(1)
    told = httpx.Response(503, headers={"Retry-After": "0"})
    assert sum(at_once.pause_s(told) is not None for _ in range(100)) == 10
