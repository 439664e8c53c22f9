"""The ``ws-gateway`` command as a shell sees it: what is on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from gateway import __version__
from gateway.config import load
from gateway.errors import ConfigError

SECRET = "correct-horse-battery-staple-0123456789"
GOOD = f"kafka: {{topics: [news, prices]}}\nauth: {{secret: {SECRET}}}\n"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs one command in a folder with ``etc/config.yaml`` (GOOD, or ``config``)."""

    def run(
        *arguments: str, config: str = GOOD, stdin: bytes = b"", **environ: str
    ) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc/config.yaml").write_text(config)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WSGATEWAY_")}
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(Path(__file__).parents[3]), **environ},
            input=stdin,
            capture_output=True,
            timeout=60,
        )

    return run


def claims(token: bytes) -> dict[str, object]:
    """What a token says, its signature checked."""
    return jwt.decode(token.decode().strip(), SECRET, algorithms=["HS256"], options={"verify_aud": False})


# ws-gateway


def test_the_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"ws-gateway {__version__}\n".encode())


@pytest.mark.parametrize("arguments", [(), ("no-such-command",), ("token",), ("token", "--sub", "a", "--ttl", "5")])
def test_wrong_usage_is_exit_code_2_and_nothing_on_stdout(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"usage: ws-gateway" in done.stderr


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help").stdout.decode()
    assert all(command in shown for command in ("serve", "check-config", "token", "publish"))


# check-config


def test_a_good_configuration_is_ok(run: Run) -> None:
    done = run("check-config", "-c", "etc/config.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"etc/config.yaml: ok\n", b"")


def test_what_a_start_would_warn_of_is_a_note(run: Run) -> None:
    done = run("check-config", "-c", "etc/config.yaml", config=GOOD + "redis: {addr: 'localhost:6379'}\n")
    assert done.returncode == 0
    assert done.stderr.startswith(b"note: redis.addr is set, and not used yet")


def test_every_problem_is_a_line_on_stderr(run: Run) -> None:
    done = run(
        "check-config", "-c", "etc/config.yaml", config="server: {prot: 1}\nx: 1\n", WSGATEWAY_AUTH_SECRET=SECRET
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert [line.split(": ")[:2] for line in done.stderr.decode().splitlines()] == [
        ["etc/config.yaml:1", "server.prot"],
        ["etc/config.yaml:2", "x"],
        ["etc/config.yaml", "kafka.topics"],
    ]


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_start_says_the_same_lines(run: Run, tmp_path: Path, command: str) -> None:
    """check-config that lets pass what a start refuses, or the other way round, is worth nothing."""
    bad = "server: {prot: 1, readTimeout: 10}\nauth: {secret: short}\nkafka: {topics: [a, a]}\n"
    done = run(command, "-c", str(tmp_path / "etc/config.yaml"), config=bad)
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "etc/config.yaml"), {})
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == caught.value.problems


def test_a_file_that_is_not_there(run: Run) -> None:
    done = run("check-config", "-c", "gone.yaml")
    assert (done.returncode, done.stderr) == (1, b"gone.yaml: cannot be read: No such file or directory\n")


def test_a_nasty_file_is_a_line_in_bounded_time(run: Run) -> None:
    bomb = "a: &a {x: 1}\n" + "".join(
        f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 50)}]}}\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    done = run("check-config", "-c", "etc/config.yaml", config=bomb)
    assert done.returncode == 1
    assert done.stderr == b"etc/config.yaml:1: more than 20000 values, aliases counted each time\n"


# token


def test_a_token_is_all_that_is_on_stdout(run: Run) -> None:
    done = run("token", "--sub", "alice", "--topics", "news,prices/AAPL", "--publish", "chat", "--ttl", "90s")
    assert (done.returncode, done.stderr) == (0, b"")
    said = claims(done.stdout)
    issued, expires = said.pop("iat"), said.pop("exp")
    assert said == {"sub": "alice", "topics": ["news", "prices/AAPL"], "publish": ["chat"]}
    assert isinstance(issued, int) and isinstance(expires, int) and expires - issued == 90


def test_claims_that_are_left_out_are_absent_and_empty_ones_grant_nothing(run: Run) -> None:
    """The defaults of the configuration stand in for a claim that is absent, and never for one that is there."""
    said = claims(run("token", "--sub", "alice", "--topics", "").stdout)
    assert said["topics"] == []
    assert "publish" not in said


def test_the_configuration_says_where_claims_are_and_who_it_is_for(run: Run) -> None:
    config = (
        f"kafka: {{topics: [a]}}\nauth: {{secret: {SECRET}, audience: [web, app], issuer: me, userClaim: user.id, "
        "topicsClaim: grants.read, publishClaim: 'https://example.com/publish'}\n"
    )
    said = claims(run("token", "--sub", "alice", "--publish", "x", config=config).stdout)
    assert {**said, "iat": 0, "exp": 0} == {
        "sub": "alice",
        "user": {"id": "alice"},
        "grants": {},
        "https://example.com/publish": ["x"],
        "aud": "web",
        "iss": "me",
        "iat": 0,
        "exp": 0,
    }


def test_of_two_secrets_the_first_signs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{SECRET}\n{'x' * 40}\n")
    done = run("token", "--sub", "a", config="kafka: {topics: [a]}\nauth: {secretFile: secrets}\n")
    assert claims(done.stdout)["sub"] == "a"


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ("publicKeyFile: key.pem", b"the configuration has public keys only (auth.publicKeyFile)"),
        ("jwksUrl: 'https://issuer.example/keys'", b"the configuration has public keys only (auth.jwksUrl)"),
        ("mode: none, allowInsecure: true", b"auth.mode is none, so no token is needed: connect with ?user_id=alice"),
        (f"secret: {SECRET}, maxLifetime: 30m", b"--ttl is above auth.maxLifetime (30m)"),
    ],
)
def test_where_no_token_can_be_made_the_reason_is_told(run: Run, tmp_path: Path, auth: str, reason: bytes) -> None:
    (tmp_path / "key.pem").write_text(PUBLIC)
    done = run("token", "--sub", "alice", config=f"kafka: {{topics: [a]}}\nauth: {{{auth}}}\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ws-gateway token: " + reason)


# publish: what is refused before anything is sent


@pytest.mark.parametrize(
    ("arguments", "stdin", "reason"),
    [
        (("nope", "{}"), b"", b"nope is not among kafka.topics; allowed: news, prices"),
        (("news", "{"), b"", b"the value is not JSON"),
        (("news", "NaN"), b"", b"the value is not JSON (NaN is no JSON)"),
        (("news", ""), b"", b"the value is not JSON"),
        (("news", "-"), b"[" * 60_000, b"the value is not JSON"),
        (("news", "-"), b"1" * 5000, b"the value is not JSON"),
        (("news", "-"), b'"\xff"', b"the value is not UTF-8"),
        (("news", "-"), b'"' + b"x" * 70_000 + b'"', b"the value is larger than publish.maxBytes (65536 bytes)"),
        (("news", "{}", "--raw"), b"", b"--raw works with Kafka only"),
        (("news", "{}", "--header", "a=b"), b"", b"--header works with Kafka only"),
        (("news", "{}"), b"", b"no key for /api in the configuration; set admin.apiKeysFile or admin.apiKeys"),
    ],
)
def test_what_cannot_be_published(run: Run, arguments: tuple[str, ...], stdin: bytes, reason: bytes) -> None:
    done = run("publish", *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ws-gateway publish: " + reason)
    assert done.stderr.count(b"\n") == 1


def test_without_a_daemon_it_says_how_to_start_one(run: Run) -> None:
    done = run("publish", "news", "{}", config=GOOD + "server: {port: 1}\nadmin: {apiKeys: [0123456789abcdef]}\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == (
        b"ws-gateway publish: no gateway at http://127.0.0.1:1/api/publish: Connection refused; "
        b"start one (ws-gateway serve), or name it with --url\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("news", "{}", "--header", "novalue"), b'--header "novalue"; allowed: name=value'),
        (("news", "{}", "--user", "bob", "--raw"), b"--user and --raw: the user goes into JSON; leave one out"),
        (("prices", "{}", "--user", "bob"), b"prices has audience key, not user"),
        (("news", "[]", "--user", "bob"), b"data is no object with user_id in it"),
        (("news", '{"user_id":"eve"}', "--user", "bob"), b"the record names another user in value.user_id"),
    ],
)
def test_what_cannot_be_written_to_kafka(run: Run, arguments: tuple[str, ...], reason: bytes) -> None:
    config = (
        "kafka: {bootstrapServers: '127.0.0.1:1', topics: [news, {name: prices, audience: key}]}\n"
        f"auth: {{secret: {SECRET}}}\n"
    )
    done = run("publish", *arguments, config=config)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [f"ws-gateway publish: {reason.decode()}"]
