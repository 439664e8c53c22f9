"""Who may have a name: what a token's claims grant, as ``docs/protocol.md`` (Names, Claims) says.

A grant is a name in which ``*`` stands for any characters but ``/``. ``{sub}`` is replaced by the user's id as it is
spelt in a name, where ``*``, ``/`` and braces are ``%XX``: whatever a user is called, the id is never read as a
pattern.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core import names
from gateway.errors import AuthError, Refused
from gateway.model import Grants, Name, Principal

MAX_CLAIM_LENGTH = 16 * 1024
"""Characters of one claim's entries together, ``{sub}`` replaced."""

MAX_WILD = 100
"""Entries with ``*`` of one claim: each is looked at for each name that no entry grants exactly."""

_SUB = "{sub}"


def grants(claim: object, user: str, *, defaulted: bool = False) -> Grants:
    """What ``claim`` grants to ``user``: a list of names with ``*`` and ``{sub}``, or these in one string with blanks
    between. ``defaulted``: it is ``auth.defaultTopics`` or ``auth.defaultPublish``, the token's own being absent.

    An entry that spells no name grants nothing. Raises :class:`AuthError` (reason ``claims``) for any other type, and
    where a bound is exceeded.
    """
    entries = claim.split() if isinstance(claim, str) else claim
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise AuthError("a claim of names is neither a list of strings nor a string", "claims")
    patterns = tuple(dict.fromkeys(entries))
    if any(_SUB in pattern for pattern in patterns):
        spelt = names.spell_key(user)
        patterns = tuple(pattern.replace(_SUB, spelt) for pattern in patterns)
    found = Grants(patterns, defaulted)
    if sum(map(len, patterns)) > MAX_CLAIM_LENGTH or len(found.wild) > MAX_WILD:
        raise AuthError(
            f"a claim of names has more than {MAX_CLAIM_LENGTH} characters, or {MAX_WILD} entries with *", "claims"
        )
    return found


def may(grants: Grants, name: Name, keyed: bool) -> bool:
    """Whether ``grants`` hold ``name``. ``keyed``: its topic has ``audience: key``."""
    topic, key = name
    if topic in grants.exact:
        return True  # a topic's grant is for all of its keys
    spelt = None if key is None else names.spell_key(key)
    if spelt is not None and f"{topic}/{spelt}" in grants.exact:
        return True
    named_only = keyed and grants.defaulted
    return any(_grants(pattern, topic, spelt, named_only) for pattern in grants.wild)


def default_names(principal: Principal, keyed: Mapping[str, bool]) -> tuple[Name, ...]:
    """What a client gets that leaves ``topics`` out: of the configured topics (name -> has ``audience: key``) each that
    its token allows, but no whole keyed topic; of these the single keys that the token names without ``*``."""
    topics = [Name(topic) for topic, by_key in keyed.items() if not by_key]
    found = [name for name in topics if may(principal.topics, name, keyed=False)]
    for spelt in sorted(principal.topics.exact):
        if "/" in spelt and keyed.get(spelt.partition("/")[0]):
            try:
                found.append(names.parse(spelt))
            except Refused:
                continue  # another spelling than the one: grants nothing
    return tuple(found)


def _grants(pattern: str, topic: str, spelt: str | None, named_only: bool) -> bool:
    """Whether one entry with ``*`` grants the name; ``named_only``: not by a ``*`` in the topic part."""
    topics, slash, keys = pattern.partition("/")
    if named_only and "*" in topics:
        return False
    if not slash:
        return _matches(topics, topic)
    return spelt is not None and _matches(topics, topic) and _matches(keys, spelt)


def _matches(pattern: str, text: str) -> bool:
    """``*`` as any characters, in one pass: after the fixed ends, each piece is taken where it first occurs. Nothing is
    ever tried again, so that ``a*a*a*b`` costs no more than it is long."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return first == text
    last = pieces.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in pieces:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
