"""Tokens of an identity provider: the daemon, its HTTP client, and a provider that rotates its keys or is away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.daemon import DEADLINE, Daemon, free_port, until
from tests.support.jwks_server import JwksServer, Signer

OLD, NEW = Signer("ES256", "old"), Signer("RS256", "new")


@pytest.fixture
def provider() -> Iterator[JwksServer]:
    with JwksServer(OLD) as server:
        yield server


def daemon(folder: Path, url: str) -> Daemon:
    return Daemon({"auth": {"secretFile": None, "jwksUrl": url, "audience": "app"}}, folder)


def token(signer: Signer, **headers: Any) -> str:
    return signer.token({"sub": "alice", "aud": "app", "exp": int(time.time()) + 600}, **headers)  # noqa: TID251


def enter(gateway: Daemon, text: str) -> int | str:
    """The user that the token lets in, or the status with which it is refused."""
    address = f"ws://{gateway.host}:{gateway.port}/ws"
    try:
        with connect(address, additional_headers={"Authorization": f"Bearer {text}"}) as client:
            user: str = json.loads(client.recv(DEADLINE))["userId"]
            return user
    except InvalidStatus as refused:
        return refused.response.status_code


def readiness(gateway: Daemon) -> tuple[int, str]:
    """What ``/readyz`` answers, and how it says the keys are."""
    status, body = gateway.http("GET", "/readyz")
    return status, json.loads(body)["checks"]["jwks"]


def test_keys_are_fetched_rotated_and_not_fetched_for_everybody(provider: JwksServer, tmp_path: Path) -> None:
    """Nobody would get in; or those with a new key not; or anybody could make the gateway flood the provider (B11)."""
    with daemon(tmp_path, provider.url) as gateway:
        assert enter(gateway, token(OLD)) == "alice"
        assert provider.requests == 1
        provider.serve(OLD, NEW)
        assert enter(gateway, token(NEW)) == "alice"
        assert provider.requests == 2
        assert [enter(gateway, token(OLD, kid=f"unknown-{number}")) for number in range(50)] == [401] * 50
        assert provider.requests <= 3  # a fetch each 5 s at most
        assert enter(gateway, token(OLD)) == "alice"
        forged = token(Signer("ES256", "old"))
        assert enter(gateway, forged) == 401
        assert not any(part in gateway.log() for part in forged.split("."))


def test_a_provider_that_is_away(provider: JwksServer, tmp_path: Path) -> None:
    """At the start clients are told to come again, not that their token is wrong; later on nobody notices."""
    port = free_port()
    with daemon(tmp_path, f"http://127.0.0.1:{port}/jwks") as gateway:
        assert enter(gateway, token(OLD)) == 503
        assert readiness(gateway) == (200, "failed")  # an identity provider that is away must not end every process
        with JwksServer(OLD, port=port):
            until(lambda: enter(gateway, token(OLD)) == "alice", "the keys are fetched")
        assert readiness(gateway) == (200, "ok")
        assert enter(gateway, token(OLD)) == "alice"
