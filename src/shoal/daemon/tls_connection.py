"""TLS on a connection of which either end may be closed alone, as clients of `docker attach` and `exec` do.

The event loop's own TLS ends the whole connection when a client says that it sends no more, and what a container says
after that is lost. This stands between a plain transport and the protocol above: the one sees encrypted bytes, the
other plain ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, cast

READ_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 30.0


class TlsConnection(asyncio.Protocol, asyncio.Transport):
    """A connection that a client has opened: the protocol of what lies below, the transport of what lies above.

    Args:
        make_protocol: makes the protocol above, once the handshake is done.
        context: of the server.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext) -> None:
        super().__init__()
        self._make_protocol = make_protocol
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._above: asyncio.Protocol | None = None
        self._below: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._has_ended = False  # the client sends no more, and the protocol above knows it
        self._is_finished = False  # we send no more

    # what the transport below tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's handshake."""
        # uvloop's are no subclass of asyncio's
        self._below = cast("asyncio.Transport", transport)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._below.abort)

    def data_received(self, data: bytes) -> None:
        """Take encrypted bytes."""
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """Take note that the client sends no more; the other way stays open as long as it is needed."""
        self._incoming.write_eof()
        self._advance()
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol above."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._above is not None:
            self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on: too much waits to be sent."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._above is not None:
            self._above.resume_writing()

    def _advance(self) -> None:
        try:
            if self._above is None:
                self._tls.do_handshake()
                self._begin()
            self._deliver()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            self._flush()
        except ssl.SSLError:
            # a client without a certificate that is known, or none that speaks TLS: it is told why, if it can be
            self._flush()
            self._transport.close()

    def _begin(self) -> None:
        assert self._deadline is not None, "the connection was made"
        self._deadline.cancel()
        self._flush()
        above = self._make_protocol()
        assert isinstance(above, asyncio.Protocol), "HTTP is a stream"
        self._above = above
        above.connection_made(self)

    def _deliver(self) -> None:
        """Give the protocol above what there is; raises SSLWantReadError when there is no more for now."""
        while not self._is_paused and not self._has_ended and not self._transport.is_closing():
            assert self._above is not None, "it began"
            try:
                data = self._tls.read(READ_BYTES)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                data = b""
            self._flush()
            if data:
                self._above.data_received(data)
                continue
            self._has_ended = True
            if not self._above.eof_received():
                self.close()

    @property
    def _transport(self) -> asyncio.Transport:
        assert self._below is not None, "the connection was made"
        return self._below

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._transport.write(data)

    # what the protocol above asks for

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection below."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Put another protocol above."""
        assert isinstance(protocol, asyncio.Protocol), "of a stream"
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        assert self._above is not None, "it began"
        return self._above

    def is_reading(self) -> bool:
        """Tell whether what comes is passed on."""
        return not self._is_paused and not self._has_ended

    def pause_reading(self) -> None:
        """Pass nothing on for now."""
        self._is_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Pass on what has come, and what comes."""
        self._is_paused = False
        self._transport.resume_reading()
        # not from within: the protocol may be in the middle of something
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._advance()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say from where on writing is paused."""
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return how much waits to be sent."""
        return self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return from where on writing is paused."""
        return self._transport.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if data and not self._is_finished and not self._transport.is_closing():
            self._tls.write(data)
            self._flush()

    def can_write_eof(self) -> bool:
        """Tell that one way can be closed alone."""
        return True

    def write_eof(self) -> None:
        """Say that no more is sent; the client may go on sending."""
        self._finish()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Close both ways once all is sent."""
        self._finish()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _finish(self) -> None:
        if not self._is_finished and self._above is not None and not self._transport.is_closing():
            self._is_finished = True
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
