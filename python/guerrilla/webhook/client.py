"""The way to a web server: kept connections, a time limit for each request, a bounded answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from guerrilla import _core
from guerrilla.config import mask_text
from guerrilla.errors import Unavailable
from guerrilla.kept import delay_after
from guerrilla.webhook.answers import SHOWN, Answer
from guerrilla.webhook.signature import sign

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence

    from guerrilla.webhook.content import Content

__all__ = ["Client", "Target"]

log = logging.getLogger("guerrilla.webhook")

BODY_LIMIT: Final = 1 << 20
"""Octets of JSON that are read: some 10,000 replies."""
SHOWN_LIMIT: Final = 4 << 10
"""Octets that are read of what only the log shows, if at all."""
DRAIN_LIMIT: Final = 64 << 10
"""Octets of any other answer that are read, to keep the connection: a new one costs more."""
DRAIN_TIME: Final = 1.0
"""Seconds for that: the mail is saved, and its sender waits."""
IDLE: Final = 4.0
"""Seconds that a connection is kept without a request: servers often close it after 5."""
CONNECT_TIME: Final = 5.0
"""Seconds that connecting may take, at most: then each mail is answered at once for a while."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """Where mails are posted to, and how.

    Attributes:
        url: with user and password, if it has them.
        timeout: seconds for a request and its answer.
        headers: more header fields of each request.
        secrets: what each is signed with; none: not at all.
        repeat: whether one is sent again where a kept connection ends without a word.
    """

    url: str = field(repr=False)
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    repeat: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or _PORTS[parts.scheme]

    @property
    def place(self) -> str:
        """What logs call it: its path may be a secret too, as often with such URLs."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def bare_url(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def fixed_headers(self) -> dict[str, str]:
        """What each request has."""
        parts = urlsplit(self.url)
        found = {"User-Agent": f"guerrilla/{_core.__version__}", "Accept-Encoding": "identity"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            found["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        own = {name.lower() for name in self.headers}
        return {k: v for k, v in found.items() if k.lower() not in own} | dict(self.headers)


class Client:
    """Posts to one target. Used on one event loop.

    Args:
        target: where to.
        context: for https; None for http.
    """

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        self.target = target
        self._context = context
        self._url = httpx.URL(target.bare_url)
        self._headers = target.fixed_headers
        connect = min(CONNECT_TIME, 0.9 * target.timeout)
        self._extensions: dict[str, Any] = {
            "timeout": httpx.Timeout(None, connect=connect).as_dict()
        }
        self._idle: list[httpx.AsyncHTTPTransport] = []
        """Those that are not in use, the last one last, each with a connection at most."""
        self._failures = 0
        self._not_before = 0.0
        self._why = ""

    async def probe(self) -> None:
        """Connects, without a request, and disconnects.

        Raises:
            OSError: the server cannot be reached, or its certificate is not trusted.
        """
        host, port = self.target.address
        async with asyncio.timeout(self.target.timeout):
            _, writer = await asyncio.open_connection(host, port, ssl=self._context)
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(DRAIN_TIME):
                await writer.wait_closed()

    async def post(self, content: Content, name: str) -> Answer:
        """Posts, and reads the answer.

        Args:
            content: what to post.
            name: of the mail or mails, for the log.

        Raises:
            guerrilla.Unavailable: it did not come to an answer.
        """
        self._look_if_away()
        transport = self._idle.pop() if self._idle else self._new()
        answer: Answer | None = None
        try:
            async with asyncio.timeout(self.target.timeout) as limit:
                response = await self._send(transport, content, name)
                self._failures = 0
                try:
                    answer = await _read(response, limit)
                finally:
                    await response.aclose()
        except TimeoutError:
            pass  # The limit: told below, when the connection is closed.
        except (httpx.HTTPError, OSError) as error:
            why = str(error) or type(error).__name__
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                self._note_away(why)
            raise Unavailable(f"{self.target.place}: {why}") from error
        finally:
            # One that was left in the middle of a request may never be fit for another.
            if answer is None:
                await transport.aclose()
            else:
                self._idle.append(transport)
        if answer is None:
            raise Unavailable(f"{self.target.place}: no answer within {self.target.timeout:g} s")
        return answer

    async def close(self) -> None:
        """Closes every connection."""
        while self._idle:
            await self._idle.pop().aclose()

    def _new(self) -> httpx.AsyncHTTPTransport:
        # Not a client of httpx, which would keep cookies from one mail to the next, log the whole
        # URL, and ask the environment for proxies and passwords. Nor one with many connections,
        # which looks at each of them with every request: of 16 it takes twice the time, of 64 four
        # times.
        return httpx.AsyncHTTPTransport(
            verify=self._context or False,
            trust_env=False,
            limits=httpx.Limits(
                max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE
            ),
        )

    async def _send(
        self, transport: httpx.AsyncHTTPTransport, content: Content, name: str
    ) -> httpx.Response:
        while True:
            trace = _Trace()
            request = self._request(content, trace)
            try:
                return await transport.handle_async_request(request)
            except httpx.TransportError as error:
                # A new connection that fails says that the server is ill, not that it is tidy.
                if not self.target.repeat or trace.connected or _is_timeout(error):
                    raise
                log.info("%s: posted again, a kept connection ended: %s", name, error)

    def _request(self, content: Content, trace: _Trace) -> httpx.Request:
        stamp = str(int(time.time()))
        headers = {
            **self._headers,
            "Content-Type": content.content_type,
            "Content-Length": str(content.size),
            "X-Guerrilla-Timestamp": stamp,
        }
        if content.name is not None:
            headers["X-Guerrilla-Id"] = content.name
        if content.envelope is not None:
            headers["X-Guerrilla-Envelope"] = content.envelope.decode("ascii")
        if self.target.secrets:
            signature = sign(self.target.secrets, stamp, content.signed())
            headers["X-Guerrilla-Signature"] = signature
        extensions = self._extensions
        if self.target.repeat:
            extensions = extensions | {"trace": trace.note}
        return httpx.Request(
            "POST", self._url, headers=headers, content=_blocks(content), extensions=extensions
        )

    def _look_if_away(self) -> None:
        left = self._not_before - time.monotonic()
        if left > 0:
            raise Unavailable(f"{self.target.place}: {self._why}; tried again in {left:.1f} s")

    def _note_away(self, why: str) -> None:
        now = time.monotonic()
        if now < self._not_before:  # One of those that were under way with the first.
            return
        self._why = why
        self._not_before = now + delay_after(self._failures)
        self._failures += 1


class _Trace:
    """Notes whether a request had to connect first."""

    def __init__(self) -> None:
        self.connected = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpcore calls with each step."""
        del info
        self.connected = self.connected or event.startswith("connection.connect")


async def _blocks(content: Content) -> AsyncIterator[bytes]:
    for block in content.blocks():
        yield bytes(block)


async def _read(response: httpx.Response, limit: asyncio.Timeout) -> Answer:
    """The answer, as far as it matters; lifts the limit where the status settles everything."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or kind.endswith("+json")
    if response.is_success and is_json:
        body, whole = await _some(response, BODY_LIMIT, None)
        return Answer(response.status_code, is_json, body, whole)
    limit.reschedule(None)
    if not response.is_success:
        body, whole = await _some(response, SHOWN_LIMIT, DRAIN_TIME)
        location = response.headers.get("Location", "")[:SHOWN] if response.is_redirect else ""
        location = mask_text(location.partition("?")[0])
        return Answer(response.status_code, is_json, body, whole, location)
    await _some(response, DRAIN_LIMIT, DRAIN_TIME)
    return Answer(response.status_code)


async def _some(response: httpx.Response, most: int, seconds: float | None) -> tuple[bytes, bool]:
    """The first octets of a body, and whether that is all of it.

    One that is longer is not read further, nor one that breaks off or takes too long: whoever
    closes the response then closes the connection as well.
    """
    found = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for block in response.aiter_raw():
                found += block
                if len(found) > most:
                    return bytes(found[:most]), False
    except (httpx.HTTPError, TimeoutError, OSError):
        return bytes(found), False
    return bytes(found), True


def _is_timeout(error: httpx.TransportError) -> bool:
    return isinstance(error, httpx.TimeoutException)
