"""From the log to the sessions: who gets what, and in how many writes."""

from __future__ import annotations

from gateway.model import Audience, Encoding
from tests.support.harness import serve, topic


def test_everyone() -> None:
    """A topic for everyone goes to all who subscribed, and to nobody else."""
    gw = serve(topic("news"), topic("other"))
    here, elsewhere = gw.connect(topics="news"), gw.connect(topics="other")
    gw.log.append("news", {"n": 1}, key="k", timestamp=1500)
    here.take(), elsewhere.take()
    gw.read("news")
    assert here.one() == {
        "type": "MESSAGE",
        "topic": "news",
        "partition": 0,
        "offset": 0,
        "timestamp": "1970-01-01T00:00:01.500Z",
        "key": "k",
        "data": {"n": 1},
    }
    assert elsewhere.take() == []


def test_user() -> None:
    gw = serve(topic("mail", Audience.USER))
    ann, ann2, bob = gw.connect("ann"), gw.connect("ann"), gw.connect("bob")
    for client in (ann, ann2, bob):
        client.take()
    gw.log.append("mail", {"user_id": "ann"})
    gw.log.append("mail", {"user_id": "bob"})
    gw.log.append("mail", {"user_id": "ann", "n": 2})
    gw.read("mail")
    assert ann.offsets() == ann2.offsets() == [0, 2]
    assert bob.offsets() == [1]
    assert ann.channel.pushes == 2, "CONNECTED, and one write a batch"


def test_key() -> None:
    gw = serve(topic("rooms", Audience.KEY))
    one, both, whole = gw.connect(topics="rooms/1"), gw.connect(topics="rooms/1,rooms/2"), gw.connect(topics="rooms")
    for client in (one, both, whole):
        client.take()
    for key in ("1", "2", "3", None, "1"):
        gw.log.append("rooms", {"k": key}, key=key)
    gw.read("rooms")
    assert one.offsets() == [0, 4]
    assert both.offsets() == [0, 1, 4]
    assert whole.offsets() == [0, 1, 2, 3, 4]


def test_raw() -> None:
    gw = serve(topic("news"))
    client = gw.connect(topics="news", encoding=Encoding.RAW)
    for value in (b'{"a":1}', b"\xff", None, b""):
        gw.log.append("news", value)
    gw.read("news")
    assert client.raw() == [(1, b'{"a":1}'), (2, b"\xff"), (1, b"")]


def test_stall_behind_drained_live() -> None:
    gw = serve(topic("news"))
    client = gw.connect(topics="news")
    client.take()
    client.stall()
    for n in range(10):
        gw.log.append("news", {"n": n})
        gw.read("news")
    assert client.behind() and gw.catch_up.behind == 1
    assert gw.catch_up.waiting() == len(client.channel.waiting) > 0
    client.drain()
    assert gw.catch_up.waiting() == 0
    assert client.offsets() == list(range(10))
    assert client.live() and gw.catch_up.behind == 0
    gw.log.append("news")
    gw.read("news")
    assert client.offsets() == [10]
