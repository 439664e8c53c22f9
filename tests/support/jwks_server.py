"""An identity provider for tests: signs tokens, and serves its keys over HTTP, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256K1,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

Reply = Callable[[BaseHTTPRequestHandler], None]

_CURVES = {"ES256": SECP256R1(), "ES384": SECP384R1(), "ES512": SECP521R1(), "ES256K": SECP256K1()}


class Signer:
    """One key pair. RSA keys are slow to make: share them."""

    def __init__(self, algorithm: str = "ES256", kid: str | None = "k1") -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private: Any
        if algorithm == "EdDSA":
            self.private = Ed25519PrivateKey.generate()
        elif algorithm in _CURVES:
            self.private = generate_private_key(_CURVES[algorithm])
        else:
            self.private = generate_rsa(65537, 2048)

    @property
    def pem(self) -> bytes:
        """The public key, as ``auth.publicKeyFile`` has it."""
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as a JWK set has it."""
        algorithm = get_default_algorithms()[self.algorithm]
        jwk: dict[str, Any] = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        return {**jwk, "use": "sig", "alg": self.algorithm} | ({} if self.kid is None else {"kid": self.kid})

    def token(self, claims: Mapping[str, Any], **headers: Any) -> str:
        """A token, with the key's ``kid`` unless ``headers`` has another."""
        kid = {} if self.kid is None else {"kid": self.kid}
        return jwt.encode(dict(claims), self.private, algorithm=self.algorithm, headers={**kid, **headers})


class JwksServer:
    """Serves a JWK set on 127.0.0.1, from a thread; ``requests`` counts what was asked. Used as a context."""

    _reply: Reply

    def __init__(self, *signers: Signer, port: int = 0) -> None:
        self.requests = 0
        self._released = threading.Event()
        self.serve(*signers)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server._reply(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests are quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = False  # server_close waits for them: no thread outlives its test
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """Where the set is."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/jwks"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def serve(self, *signers: Signer) -> None:
        """The set of these keys, from now on."""
        self.answer(json.dumps({"keys": [signer.jwk for signer in signers]}).encode())

    def answer(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """This answer, from now on."""

        def reply(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self._reply = reply

    def reply(self, reply: Reply) -> None:
        """Whatever ``reply`` writes, from now on."""
        self._reply = reply

    def endless(self) -> None:
        """A body that never ends, from now on."""

        def reply(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            try:
                while not self._released.is_set():
                    handler.wfile.write(b" " * 65536)
            except OSError:
                pass  # it was cut off, as it should

        self._reply = reply

    def stall(self, *, after_head: bool) -> None:
        """No answer, or only the head of one, until the context ends."""

        def reply(handler: BaseHTTPRequestHandler) -> None:
            if after_head:
                handler.send_response(200)
                handler.send_header("Content-Length", "100")
                handler.end_headers()
            self._released.wait()

        self._reply = reply
