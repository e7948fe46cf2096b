"""GET /: a page that needs nothing from elsewhere, nothing inline, and no second look at what it has."""

import gzip
import re

import httpx

from api.security_headers import PAGE
from tests.gateway.problem import assert_problem

LINKS = re.compile(r'(?:href|src)="(/studio/[^"]+)"')
IMPORTS = re.compile(r'(?:from|import)\s*\(?"\./([^"]+)"')


def test_every_file_of_the_page_is_there_and_kept_for_a_year(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "public, no-cache"
    seen: set[str] = set()
    wanted = set(LINKS.findall(page.text))
    assert len(wanted) > 6
    while wanted - seen:
        path = (wanted - seen).pop()
        seen.add(path)
        answer = http.get(path)
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"]
        if path.endswith(".js"):
            assert answer.headers["content-type"].startswith("text/javascript")
            wanted |= {f"{path.rpartition('/')[0]}/{name}" for name in IMPORTS.findall(answer.text)}
    assert len([path for path in seen if path.endswith(".js")]) > 10


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.headers["content-security-policy"] == PAGE
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=|https?://", page.text)
    for path in LINKS.findall(page.text):
        answer = http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["vary"] == "Accept-Encoding"
        if not path.endswith(".png"):
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text), path


def test_it_is_sent_compressed_and_asked_for_again_at_the_price_of_a_304(http: httpx.Client) -> None:
    plain = http.get("/", headers={"Accept-Encoding": "identity"})
    with http.stream("GET", "/", headers={"Accept-Encoding": "gzip"}) as zipped:
        assert zipped.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(zipped.iter_raw())) == plain.content
    again = http.get("/", headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    policy = again.headers.get("content-security-policy", PAGE)  # a browser would put it on the page that it has
    assert policy == PAGE


def test_files_of_another_release_are_gone(http: httpx.Client) -> None:
    path = LINKS.findall(http.get("/").text)[0]
    assert_problem(http.get(re.sub("/studio/[^/]+/", "/studio/0123/", path)), "not-found")
    assert_problem(http.get(path + ".map"), "not-found")
