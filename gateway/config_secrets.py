"""Reads the secrets that the configuration names by file, as Kubernetes and systemd hand them out.

Files are named relative to the working directory and read once, at start. No error shows what is in them.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from gateway.config_formats import API_KEY
from gateway.config_kafka import Security
from gateway.config_sections import Admin, Auth, Config
from gateway.config_values import InvalidValueError

MAX_FILE = 64 * 1024  # bytes
MIN_SECRET = 32  # bytes: RFC 7518 section 3.2 asks for the size of the hash, of which SHA-256's is the smallest

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)

Problem = tuple[str, str]  # dotted key, what is wrong and what to do


def resolve(config: Config) -> tuple[Config, list[Problem]]:
    """The configuration with ``auth.secrets``, ``auth.public_keys``, ``admin.api_keys`` and the password filled in."""
    problems: list[Problem] = []
    auth = _auth(config.auth, problems) if config.auth.mode == "jwt" else config.auth
    admin = _admin(config.admin, problems)
    security = _security(config.kafka.security, problems)
    kafka = attrs.evolve(config.kafka, security=security)
    return attrs.evolve(config, auth=auth, admin=admin, kafka=kafka), problems


def _auth(auth: Auth, problems: list[Problem]) -> Auth:
    if auth.secret is not None:
        auth = attrs.evolve(auth, secrets=(auth.secret.encode(),))
        problems.extend(("auth.secret", reason) for reason in _short(auth.secrets))
    elif auth.secret_file is not None:
        auth = attrs.evolve(auth, secrets=tuple(_lines("auth.secretFile", auth.secret_file, problems)))
        if len(auth.secrets) > 2:
            problems.append(
                ("auth.secretFile", f"{len(auth.secrets)} lines; allowed: one secret, or two while they rotate")
            )
        problems.extend(("auth.secretFile", reason) for reason in _short(auth.secrets))
    if auth.public_key_file is not None:
        data = _read("auth.publicKeyFile", auth.public_key_file, problems)
        auth = attrs.evolve(auth, public_keys=() if data is None else _pem(data, problems))
    return auth


def _short(secrets: tuple[bytes, ...]) -> list[str]:
    return [
        f"a secret of {len(secret)} bytes; allowed: {MIN_SECRET} bytes or more, as `openssl rand -hex 32` prints"
        for secret in secrets
        if len(secret) < MIN_SECRET
    ]


def _pem(data: bytes, problems: list[Problem]) -> tuple[bytes, ...]:
    found = [(match[1], match[0]) for match in _PEM.finditer(data)]
    wrong = sorted({label.decode() for label, _ in found if not label.endswith(b"PUBLIC KEY")})
    if any("PRIVATE" in label for label in wrong):
        problems.append(("auth.publicKeyFile", "it holds a private key; the gateway only ever needs the public one"))
    elif wrong:
        advice = "`openssl x509 -pubkey -noout` takes the key out of a certificate"
        problems.append(("auth.publicKeyFile", f"it holds {', '.join(wrong)}; allowed: PUBLIC KEY ({advice})"))
    elif not 1 <= len(found) <= 2:
        problems.append(
            ("auth.publicKeyFile", f"{len(found)} PEM blocks; allowed: one public key, or two while they rotate")
        )
    return tuple(block for _, block in found)


def _admin(admin: Admin, problems: list[Problem]) -> Admin:
    if admin.api_keys_file is None:
        return admin
    found = []
    for number, line in enumerate(_lines("admin.apiKeysFile", admin.api_keys_file, problems), 1):
        try:
            found.append(API_KEY.read(line.decode("ascii", "replace")))
        except InvalidValueError:
            problems.append(("admin.apiKeysFile", f"key {number}; allowed: {API_KEY.allowed}"))
    return attrs.evolve(admin, api_keys=tuple(dict.fromkeys((*admin.api_keys, *found))))


def _security(security: Security, problems: list[Problem]) -> Security:
    if security.password_file is None or security.password is not None:
        return security
    lines = _lines("kafka.security.passwordFile", security.password_file, problems)
    if len(lines) > 1:
        problems.append(("kafka.security.passwordFile", f"{len(lines)} lines; allowed: one password"))
    try:
        return attrs.evolve(security, password=lines[0].decode() if lines else None)
    except UnicodeDecodeError:
        problems.append(("kafka.security.passwordFile", "not UTF-8"))
        return security


def _lines(key: str, path: str, problems: list[Problem]) -> list[bytes]:
    """The lines that are not empty; none at all is a problem."""
    data = _read(key, path, problems)
    if data is None:
        return []
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problems.append((key, "it begins with a byte order mark, which would be part of the secret; write it without"))
        return []
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()]
    if not lines:
        problems.append((key, "the file is empty"))
    return lines


def _read(key: str, path: str, problems: list[Problem]) -> bytes | None:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        problems.append((key, f"{path} cannot be read: {error.strerror} (working directory: {Path.cwd()})"))
        return None
    if len(data) > MAX_FILE:
        problems.append((key, f"{path} is larger than {MAX_FILE // 1024}KiB"))
        return None
    return data
