"""ws-gateway: pushes Kafka records to WebSocket clients, and takes what they send back into Kafka."""

__version__ = "0.1.0"
