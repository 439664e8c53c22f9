"""``ws-gateway token``: a token for trying things out, signed with the secret that the configuration names."""

from __future__ import annotations

import argparse
import datetime
import os
from typing import Any

import jwt

from gateway.cli.errors import CliError
from gateway.config import Auth, load
from gateway.config_values import Duration, EnvText, InvalidValueError

TTL = Duration(1, 3650 * 86400.0)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "token",
        help="print a token for a user",
        description="Print a token, signed (HS256) with the secret of the configuration; nothing else on stdout.",
    )
    parser.add_argument("--sub", required=True, metavar="USER", help="the user")
    parser.add_argument(
        "--topics", metavar="NAMES", help='names to subscribe to, with commas; without: auth.defaultTopics; "": none'
    )
    parser.add_argument(
        "--publish", metavar="NAMES", help='names to publish to, with commas; without: auth.defaultPublish; "": none'
    )
    parser.add_argument("--ttl", default="1h", type=_ttl, metavar="TIME", help="how long it is valid (default: 1h)")
    return parser


def _ttl(text: str) -> float:
    try:
        return TTL.read(EnvText(text))
    except InvalidValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong) or f"allowed: {TTL.allowed}") from None


def run(options: argparse.Namespace) -> int:
    """Print the token."""
    auth = load(options.config, os.environ).auth
    if auth.mode == "none":
        raise CliError(f"auth.mode is none, so no token is needed: connect with ?user_id={options.sub}")
    if not auth.secrets:
        source = "auth.jwksUrl" if auth.jwks_url is not None else "auth.publicKeyFile"
        raise CliError(f"the configuration has public keys only ({source}): ask their owner, the issuer, for a token")
    if auth.max_lifetime is not None and options.ttl > auth.max_lifetime:
        raise CliError(f"--ttl is above auth.maxLifetime ({TTL.show(auth.max_lifetime)}); allowed: up to that")
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    claims = _claims(auth, options.sub, options.topics, options.publish)
    claims |= {"iat": now, "exp": now + int(options.ttl)}
    print(jwt.encode(claims, auth.secrets[0], algorithm="HS256"))
    return 0


def _claims(auth: Auth, user: str, topics: str | None, publish: str | None) -> dict[str, Any]:
    """The claims where the configuration looks for them; ``aud`` and ``iss`` as it wants them."""
    claims: dict[str, Any] = {"sub": user}
    _put(claims, auth.user_claim, user)
    for path, names in ((auth.topics_claim, topics), (auth.publish_claim, publish)):
        _put(claims, path, None if names is None else [name for name in names.split(",") if name])
    if auth.audience:
        claims["aud"] = auth.audience[0]
    if auth.issuer:
        claims["iss"] = auth.issuer[0]
    return claims


def _put(claims: dict[str, Any], path: str, value: object) -> None:
    """Set a claim by its path; None leaves out the last step alone, which stands for a claim that is absent."""
    *through, last = [path] if "/" in path else path.split(".")
    for step in through:
        claims = claims.setdefault(step, {})
    if value is not None:
        claims[last] = value
