"""Bytes, values and now in; values out. No reactor, no Deferred, no vendor library."""
