"""What ``ws-gateway publish`` asks the API, and what it makes of every answer, wrong ones too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.cli import api
from gateway.cli.errors import CliError
from gateway.config import Admin, Config, Server

KEY = "0123456789abcdef"


class Api(ThreadingHTTPServer):
    """Answers every request as it is told, and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answer: tuple[int, bytes] | None = (200, b'{"partition":2,"offset":7}')
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        if self.server.answer is None:
            self.server.released.wait(30)
            return
        status, content = self.server.answer
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815 - where a redirect would lead

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def config(**server: Any) -> Config:
    return Config(server=Server(**server), admin=Admin(api_keys=(KEY, "another-0123456789")))


def failure(server: Api, timeout: float = 5) -> str:
    with pytest.raises(CliError) as caught:
        api.publish(config(), server.url, b"{}", timeout)
    return str(caught.value)


def test_the_body_goes_as_it_is_with_the_first_key(server: Api) -> None:
    assert api.publish(config(), server.url + "/", b'{"data": 1.0}', 5) == (2, 7)
    ((method, path, headers, body),) = server.seen
    assert (method, path, body) == ("POST", "/api/publish", b'{"data": 1.0}')
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"


def test_no_proxy_of_the_environment_is_asked(server: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be shown the key, and could not reach this machine's loopback."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert api.publish(config(), server.url, b"{}", 5) == (2, 7)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ({"title": "Not Found", "detail": "topic: not configured"}, "404 topic: not configured"),
        ({"title": "Not Found"}, "404 Not Found"),
        ([], "404 Not Found"),
        (None, "404 Not Found"),
    ],
)
def test_a_refusal_says_what_the_problem_document_says(server: Api, problem: object, told: str) -> None:
    server.answer = (404, json.dumps(problem).encode())
    assert failure(server) == f"{server.url}/api/publish refuses: {told}"


def test_a_redirect_is_not_followed(server: Api) -> None:
    """The key is for the address that was named."""
    server.answer = (302, b"")
    server.headers = {"Location": f"{server.url}/elsewhere"}
    assert failure(server) == f"{server.url}/api/publish refuses: 302 Found"
    assert len(server.seen) == 1


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"partition":null,"offset":1}', b"\xff", b""])
def test_an_answer_of_something_else(server: Api, content: bytes) -> None:
    server.answer = (200, content)
    assert failure(server) == "the answer is not that of a ws-gateway; is --url right?"


def test_no_answer_ends_in_time_and_does_not_promise_too_much(server: Api) -> None:
    server.answer = None
    assert failure(server, timeout=0.2) == (
        f"{server.url}/api/publish does not answer within 0.2 s; the record may have been written"
    )


def test_an_answer_that_is_no_http(server: Api) -> None:
    server.answer = (200, b"")
    server.headers = {"X": "y" * 100_000}
    assert failure(server).endswith("is it a ws-gateway?")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8080", "ftp://127.0.0.1"])
def test_only_http_addresses(url: str) -> None:
    with pytest.raises(CliError, match="allowed: an address that begins with http"):
        api.publish(config(), url, b"{}", 1)


@pytest.mark.parametrize(
    ("configuration", "url"),
    [
        (config(), "http://127.0.0.1:8080"),
        (config(host="::", port=9), "http://[::1]:9"),
        (config(host="10.0.0.7"), "http://10.0.0.7:8080"),
        (Config(admin=Admin(port=9100)), "http://127.0.0.1:9100"),
        (Config(admin=Admin(host="0.0.0.0", port=9100)), "http://127.0.0.1:9100"),
    ],
)
def test_where_the_configuration_puts_the_api(configuration: Config, url: str) -> None:
    assert api.base(configuration) == url


@pytest.mark.parametrize("server", [{"port": 0}, {"listen": ("unix:/run/x.sock",)}])
def test_where_that_cannot_be_known_the_url_is_asked_for(server: dict[str, Any]) -> None:
    with pytest.raises(CliError, match="name the gateway with --url"):
        api.base(config(**server))
