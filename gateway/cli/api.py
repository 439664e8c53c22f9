"""Asks the HTTP API of a running gateway."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from gateway.cli.errors import CliError
from gateway.config import Config

MAX_ANSWER = 64 * 1024  # bytes


def publish(config: Config, url: str | None, body: bytes, timeout: float) -> tuple[int, int]:
    """``POST /api/publish``; partition and offset. Raises CliError."""
    if not config.admin.api_keys:
        raise CliError("no key for /api in the configuration; set admin.apiKeysFile or admin.apiKeys")
    answer = _post(f"{(url or base(config)).rstrip('/')}/api/publish", config.admin.api_keys[0], body, timeout)
    try:
        found = json.loads(answer)
        return int(found["partition"]), int(found["offset"])
    except (ValueError, KeyError, TypeError):
        raise CliError("the answer is not that of a ws-gateway; is --url right?") from None


def _post(url: str, key: str, body: bytes, timeout: float) -> bytes:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if not url.startswith(("http://", "https://")):
        raise CliError("--url: allowed: an address that begins with http:// or https://")
    # No proxy of the environment: it would be asked for 127.0.0.1, and be shown the key.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - the scheme is checked above
        with opener.open(request, timeout=timeout) as response:
            answer: bytes = response.read(MAX_ANSWER)
            return answer
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise CliError(f"{url} refuses: {_reason(refusal)}") from None
    except TimeoutError:
        raise CliError(f"{url} does not answer within {timeout:g} s; the record may have been written") from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise CliError(f"no gateway at {url}: {reason}; start one (ws-gateway serve), or name it with --url") from None
    except (OSError, HTTPException, ValueError) as error:
        raise CliError(f"{url}: {type(error).__name__}; is it a ws-gateway?") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to nobody but the address that was named."""

    def redirect_request(self, *_: Any) -> None:
        """Leaves the answer to be told as the refusal that it is."""


def _reason(refusal: urllib.error.HTTPError) -> str:
    """What the problem document (RFC 9457) says, or else the status."""
    try:
        problem = json.loads(refusal.read(MAX_ANSWER))
        text = problem.get("detail") or problem.get("title")
    except (ValueError, AttributeError, OSError, HTTPException):
        text = None
    return f"{refusal.code} {text or refusal.reason}"


def base(config: Config) -> str:
    """Where the configuration puts ``/api``."""
    if config.admin.port is not None:
        host, port = config.admin.host, config.admin.port
    elif config.server.listen:
        raise CliError("the configuration listens on endpoints (server.listen); name the gateway with --url")
    else:
        host, port = config.server.host, config.server.port
    if port == 0:
        raise CliError("the configuration leaves the port open (0); name the gateway with --url")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - as a client reaches it
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
