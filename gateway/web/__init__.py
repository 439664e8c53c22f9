"""Bytes in and out: one port for WebSocket and HTTP."""
