"""The ``ws-gateway`` command."""
