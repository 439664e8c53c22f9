"""What a client sends, frame by frame: Autobahn's parser, and nothing else of Autobahn.

It checks every rule of RFC 6455 and 7692. What Autobahn would do by itself on a connection (answer handshakes, send,
ping, close, keep timers and statistics) is done by the connection, since each of these must be bounded in another way.
What Autobahn leaves open is closed here: the number of fragments, and the exact size of an inflated message.
"""

from __future__ import annotations

from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator

from gateway.errors import Close
from gateway.web import deflate

CHUNK = 4096  # bytes given to the parser at a time: it copies what is left once a frame
MAX_FRAGMENTS = 1024  # frames of one message
NEGOTIATED = deflate.inflater()  # stands for "deflate was agreed on" between messages
_SLACK = 1024  # bytes; Autobahn cuts a message at its own limit, and it must be seen that ours is exceeded
_CONTROL = 8  # opcodes from here on


class _Silence:
    """Autobahn's log: what matters is logged by the connection, without payloads."""

    def debug(self, *args: object, **kwargs: object) -> None:
        """Nothing."""

    info = warn = error = debug


class FrameReader(WebSocketProtocol):
    """The incoming half of a connection, which inherits it and says what becomes of messages and control frames.

    ``factory.message_bytes`` bounds a message, inflated. Between two messages nothing is kept.
    """

    factory: Any
    unread = b""  # received, and not yet given to the parser

    # What Autobahn's parser looks at.
    log = _Silence()
    data = b""
    current_frame: Any = None
    inside_message = False
    websocket_version = 13
    applyMask = requireMaskedClientFrames = utf8validateIncoming = True  # noqa: N815
    logFrames = logOctets = failedByMe = False  # noqa: N815
    trackedTimings = autoPingTimeoutCall = autoPingPending = None  # noqa: N815
    maxFramePayloadSize = 0  # noqa: N815 - a message's limit holds for its frames
    state = WebSocketProtocol.STATE_CONNECTING  # anything but open: keeps no statistics
    _perMessageCompress = None  # noqa: N815

    # What the connection does

    def reading(self) -> bool:
        """Whether to go on with what has come."""
        raise NotImplementedError

    def message(self, payload: bytes, binary: bool) -> None:
        """A whole message, valid UTF-8 if it is text."""
        raise NotImplementedError

    def ping(self, payload: bytes) -> None:
        """A PING."""
        raise NotImplementedError

    def pong(self, payload: bytes) -> None:
        """A PONG."""
        raise NotImplementedError

    def extra_frame(self) -> None:
        """A further frame of a message."""
        raise NotImplementedError

    def peer_closes(self, code: int | None) -> None:
        """A valid close frame."""
        raise NotImplementedError

    def fail(self, code: Close, reason: str) -> None:
        """A rule was broken; nothing behind it is to be read."""
        raise NotImplementedError

    # The parser

    def parse(self) -> None:
        """Go through ``unread``, as long as ``reading``."""
        fed = bool(self.data)
        while self.reading():
            if not fed:
                if not self.unread:
                    break
                self.data += self.unread[:CHUNK]
                self.unread = self.unread[CHUNK:]
            fed = self.processData()

    def onFrameBegin(self) -> None:
        """A frame's header is valid. What holds state is made for one message and dropped with it."""
        header = self.current_frame
        if header.opcode < _CONTROL and not self.inside_message:
            self.utf8validator = Utf8Validator()
            if header.rsv:
                self._perMessageCompress = deflate.inflater()
        super().onFrameBegin()

    def _onMessageBegin(self, binary: bool) -> None:
        self._is_binary = binary
        self.message_data: Any = []
        self.message_data_total_length = self._size = self._fragments = 0
        self.maxMessagePayloadSize = self.factory.message_bytes + (self.factory.message_bytes >> 10) + _SLACK

    def _onMessageFrameBegin(self, length: int) -> None:
        """A frame that is too long is refused before any of it is kept; a deflated one is weighed by what comes out."""
        self._fragments += 1
        self.message_data_total_length += length
        limit = self.maxMessagePayloadSize if self._isMessageCompressed else self.factory.message_bytes
        if self.message_data_total_length > limit or self._fragments > MAX_FRAGMENTS:
            self._max_message_size_exceeded()
        elif self._fragments > 1:
            self.extra_frame()

    def _onMessageFrameData(self, payload: bytes) -> None:
        self._size += len(payload)
        self.message_data.append(payload)
        if self._size > self.factory.message_bytes:
            self._max_message_size_exceeded()

    def _onMessageFrameEnd(self) -> None:
        """Autobahn's collects the frame here; its data is collected already."""

    def _onMessageEnd(self) -> None:
        payload, binary = b"".join(self.message_data), self._is_binary
        del self.message_data, self.utf8validator
        if self._isMessageCompressed:
            self._perMessageCompress = NEGOTIATED
        if self.reading():  # else it was too big in the end
            self.message(payload, binary)

    def _onPing(self, payload: bytes) -> None:
        self.ping(payload)

    def _onPong(self, payload: bytes) -> None:
        self.pong(payload)

    def onCloseFrame(self, code: int | None, reason: bytes | None) -> bool:
        """True: nothing more is parsed (RFC 6455 section 7.4 says which codes may be sent)."""
        if code is not None and not 3000 <= code <= 4999 and code not in self.CLOSE_STATUS_CODES_ALLOWED:
            return self._protocol_violation("invalid close code")
        try:
            (reason or b"").decode()
        except UnicodeDecodeError:
            return self._invalid_payload("invalid close reason")
        self.peer_closes(code)
        return True

    def _protocol_violation(self, reason: str) -> bool:
        self.fail(Close.PROTOCOL_ERROR, reason)
        return True

    def _invalid_payload(self, reason: str) -> bool:
        self.fail(Close.BAD_UTF8, reason)
        return True

    def _max_message_size_exceeded(self, *_: object) -> None:
        self.fail(Close.TOO_BIG, "the message is too big")
