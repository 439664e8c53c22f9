"""Tells twistd of the subcommand ``ws-gateway``, and nothing else: twistd imports this module for every command."""

from twisted.application.service import ServiceMaker

ws_gateway = ServiceMaker(
    "ws-gateway",
    "gateway.tap",
    "Pushes Kafka records to WebSocket clients.",
    "ws-gateway",
)
