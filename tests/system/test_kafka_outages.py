"""Kafka is away, dies, stands still, moves: clients stay and miss nothing, operators are told, and callers are answered
in time. What was written is read back from Kafka itself, so nothing is taken on trust of who wrote it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.support.daemon import until
from tests.support.kafka import free_port
from tests.support.kafkacase import (
    AWAITED,
    Client,
    Steady,
    TwoWays,
    at_once,
    cpu,
    down,
    gateway,
    in_kafka,
    position,
    published,
    read_whole,
    ready,
    refused,
    shown,
    still,
)
from tests.support.proxy import Proxy

PUBLISH = {"timeout": "2s", "maxPending": 10}
IN_TIME = 2.0 + 1.0  # s until the answer to a publish, on a busy machine


def test_down_at_start(two_ways: TwoWays, tmp_path: Path) -> None:
    """The process starts, says that it is not ready, idles, and needs no restart once Kafka is there."""
    topic = two_ways.fresh(2)
    two_ways.write(topic, [b"0", b"1"], partition=1)
    daemon = gateway(tmp_path, two_ways.bootstrap, topic, publish=PUBLISH)
    try:
        with down(two_ways):
            daemon.start(ready=False)
            until(lambda: "Kafka is away" in daemon.log(), "the first attempt has failed")
            status, checks = ready(daemon)
            assert status == 503
            assert (checks["kafka"], checks["positioned"]) == ("failed", "failed")
            assert daemon.http("GET", "/healthz")[0] == 200
            *refusal, after = refused(daemon, topics=topic)
            assert refusal == [503, "not_ready"]
            assert after is not None and after > 0
            before = cpu(daemon)
            *answer, seconds = published(daemon, topic, 1)
            assert answer == [503, "unavailable"]
            assert 1.0 < seconds < IN_TIME
            assert cpu(daemon) - before < 0.3 * seconds
        daemon.wait_ready()
        until(lambda: set(ready(daemon)[1].values()) == {"ok"}, "all is well")
        read_whole(two_ways, daemon, topic)
        with Client(daemon, topic) as client, Client(daemon, topic, since=f"{topic}@0:0,1:0") as resumed:
            assert position(client.hello) == {0: 0, 1: 2}
            assert resumed.data(2) == [0, 1]
            assert resumed.frame("RECOVERED")["gaps"] == []
            assert published(daemon, topic, 2)[0] == 200
            assert client.data(1) == resumed.data(1) == [2]
    finally:
        daemon.__exit__()


def test_killed_and_back(two_ways: TwoWays, tmp_path: Path) -> None:
    """A crash of the broker is a pause: the windows serve on, nobody is thrown out, nothing is lost or comes twice."""
    topic = two_ways.fresh(3)
    with (
        gateway(tmp_path, two_ways.bootstrap, topic, publish=PUBLISH) as daemon,
        Client(daemon, topic) as client,
        Steady(two_ways, topic) as producer,
    ):
        first = client.since(topic)
        seen = client.messages(100)
        lines = len(daemon.log_lines())
        with down(two_ways):
            until(lambda: ready(daemon)[1]["kafka"] == "degraded", "the outage is named")
            assert ready(daemon)[0] == 200
            status, code, seconds = published(daemon, topic, -1)
            assert (status, code) in ((503, "unavailable"), (504, "unknown_outcome"))
            assert seconds < IN_TIME
            with Client(daemon, topic, since=first) as newcomer:
                _, recovered = newcomer.read_to("RECOVERED")
                assert recovered["gaps"] == []
                assert recovered["count"] >= 100
            producer.goes_on(50)
        producer.goes_on(50)
        assert published(daemon, topic, -2)[0] == 200
        producer.stop()
        truth = in_kafka(two_ways, topic)
        seen += client.messages(sum(map(len, truth.values())) - len(seen))
        assert shown(seen) == truth
        client.quiet()
        until(lambda: set(ready(daemon)[1].values()) == {"ok"}, "all is well")
        errors = {name: count for name, count in daemon.metrics().items() if "kafka_errors_total" in name}
        assert sum(errors.values()) > 0
        said = Counter(line["message"].partition(":")[0] for line in daemon.log_lines()[lines:])
        assert said["Kafka is away"] == 1
        assert said.total() < 150, said  # the library's own lines: ten a kind and minute


def test_stands_still_and_goes_on(two_ways: TwoWays, tmp_path: Path) -> None:
    """Connections stay and nothing is answered, the worst of outages. It lasts until every time-out has run out."""
    topic = two_ways.fresh(3)
    with (
        gateway(tmp_path, two_ways.bootstrap, topic, publish=PUBLISH) as daemon,
        Client(daemon, topic) as client,
        Steady(two_ways, topic) as producer,
    ):
        first = client.since(topic)
        seen = client.messages(100)
        with still(two_ways):
            answers = at_once([lambda: published(daemon, topic, -1)] * 30)
            codes = Counter((status, code) for status, code, _ in answers)
            assert codes[503, "busy"] == 20, codes
            assert codes[504, "unknown_outcome"] + codes[503, "unavailable"] == 10, codes
            assert max(seconds for _, _, seconds in answers) < IN_TIME
            assert min(seconds for _, code, seconds in answers if code == "busy") < 1.0
            until(lambda: ready(daemon)[1]["kafka"] == "degraded", "the outage is named", AWAITED)
            assert ready(daemon)[0] == 200
            with Client(daemon, topic, since=first) as newcomer:
                assert newcomer.read_to("RECOVERED")[1]["gaps"] == []
        producer.goes_on(100)
        until(lambda: published(daemon, topic, -2)[0] == 200, "records are taken again", AWAITED)
        producer.stop()
        truth = in_kafka(two_ways, topic)
        seen += client.messages(sum(map(len, truth.values())) - len(seen))
        assert shown(seen) == truth
        client.quiet()


def test_back_at_another_port(two_ways: TwoWays, tmp_path: Path) -> None:
    """As an orchestrator does it: the bootstrap address stays, and leads to a broker that now listens elsewhere."""
    with Proxy(two_ways.port) as bootstrap:
        topic = two_ways.fresh()
        with gateway(tmp_path, bootstrap.address, topic) as daemon, Client(daemon, topic) as client:
            two_ways.write(topic, [b"1"])
            assert client.data(1) == [1]
            two_ways.kill()
            two_ways.start(port=free_port())
            bootstrap.point_at(two_ways.port)
            two_ways.write(topic, [b"2"])
            assert client.data(1) == [2]
            assert published(daemon, topic, 3)[0] == 200
            assert client.data(1) == [3]
            client.quiet()
