"""`make bench`: how fast the gateway is, next to what the machine itself can do (docs/performance.md)."""
