"""A session from its first frame to its last."""

from __future__ import annotations

from tests.support.harness import principal, serve, topic


def test_connected() -> None:
    gw = serve(topic("news"), topic("other"))
    client = gw.connect("ann", topics="news")
    message = client.one()
    assert message["type"] == "CONNECTED"
    assert message["subscriptions"] == [{"topic": "news", "names": ["news"], "epoch": "e1", "position": {"0": 0}}]


def test_commands() -> None:
    gw = serve(topic("news"), topic("other"))
    client = gw.connect("ann", topics="")
    client.take()
    client.subscribe("news", "other", id="1")
    assert client.types() == ["SUBSCRIBED", "SUBSCRIBED"]
    client.unsubscribe("news", id="2")
    assert client.one() == {"type": "UNSUBSCRIBED", "topic": "news", "names": ["news"], "reason": "asked", "id": "2"}
    client.send({"type": "PING", "id": "x"})
    assert client.one() == {"type": "PONG", "id": "x"}
    gw.authenticator.principals["t"] = principal("ann", ["news"], 1_700_000_100)
    client.send({"type": "REFRESH", "token": "t", "id": "r"})
    assert client.take() == [
        {"type": "UNSUBSCRIBED", "topic": "other", "names": ["other"], "reason": "forbidden", "id": "r"},
        {
            "type": "ACK",
            "originalType": "REFRESH",
            "id": "r",
            "expiresAt": "2023-11-14T22:15:00.000Z",
            "timestamp": "2023-11-14T22:13:20.000Z",
        },
    ]
    client.send({"type": "DISCONNECT"})
    assert client.channel.closed_with == (1000, "")


def test_resume() -> None:
    gw = serve(topic("news"))
    for n in range(5):
        gw.log.append("news", {"n": n})
    gw.read("news")
    client = gw.connect(topics="news", since="news~e1@0:2")
    gw.run()
    assert [m["type"] for m in client.all()] == ["CONNECTED", "MESSAGE", "MESSAGE", "MESSAGE", "RECOVERED"]
    assert client.all()[-1] == {
        "type": "RECOVERED",
        "topic": "news",
        "names": ["news"],
        "count": 3,
        "gaps": [],
        "epoch": "e1",
        "position": {"0": 5},
    }
    client.take()
    gw.log.append("news")
    gw.read("news")
    assert client.offsets() == [5]
