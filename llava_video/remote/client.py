"""Bodies of requests → the events of their replies, over connections that can be closed any time.

A thread of its own runs all connections, so whoever asked is never stuck in one: replies come by
callback, and cancelling closes the connection at whatever stage it is. Failures that may pass are
tried again. Knows no prompt and no answer, but where an answer's end stands.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from llava_video.errors import CapacityError, LlavaVideoError
from llava_video.remote.address import Address
from llava_video.remote.faults import Fault, broken, fault_of_status, fault_of_stream, nonsense
from llava_video.remote.patience import Patience
from llava_video.remote.settings import RemoteSettings

# Bytes of one event and of one body that are read; longer ones are no answer.
_MOST_EVENT_BYTES: Final = 2**23
_MOST_BODY_BYTES: Final = 2**24
_END: Final = "[DONE]"
# Longest silence of a server that is asked what it is, which is no work, s.
_ASKED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Began:
    """A try begins; what came of an earlier one broke off."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer, as JSON: a chunk of a stream, or a whole completion."""

    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is whole."""


@dataclass(frozen=True, slots=True)
class Broken:
    """There is no answer, or no more of it."""

    error: Exception


Reply = Began | Chunk | Ended | Broken
Tell = Callable[[Reply], None]


class ChatClient:
    """The connections to one server; any thread may use it.

    Args:
        address: the server's.
        settings: limits and patience.
    """

    def __init__(self, address: Address, settings: RemoteSettings) -> None:
        self.address, self._settings = address, settings
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._http: httpx2.AsyncClient | None = None
        self._running: set[Future[Any]] = set()
        self._is_closed = False

    def get(self, url: str) -> Any:
        """Return the JSON at a URL of the server, asked for once.

        Raises:
            ServerError, CapacityError: as the server's trouble is.
        """
        try:
            return self._submit(self._get(url)).result()
        except Fault as fault:
            raise fault.error from fault.__cause__

    def post(self, path: str, body: bytes, tell: Tell) -> Callable[[], None]:
        """Send a request; return what cancels it.

        Args:
            path: behind the base URL.
            body: JSON.
            tell: called from the connections' thread, `Ended` or `Broken` last, and nothing after
                it; must not block.
        """
        future = self._submit(self._post(path, body, tell))

        def ended(done: Future[None]) -> None:
            # Cancelled before it ran, or while it did: the others have told how they ended.
            if done.cancelled():
                tell(Broken(_closed()))

        future.add_done_callback(ended)
        return lambda: _cancel(future)

    def close(self) -> None:
        """Close all connections; requests under way are broken off."""
        with self._lock:
            self._is_closed = True
            running, loop, thread = list(self._running), self._loop, self._thread
            self._loop = None
        for future in running:
            future.cancel()
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._is_closed:
                work.close()
                raise _closed()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                name = "llava-video connections"
                # A daemon: a server that hangs must not keep a program from ending.
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=name, daemon=True
                )
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def _get(self, url: str) -> Any:
        silence_s = min(_ASKED_S, self._settings.silence_s)
        async with self._open("GET", url, b"", silence_s) as response:
            return _json_of(await _body_of(response, self.address), self.address)

    async def _post(self, path: str, body: bytes, tell: Tell) -> None:
        patience = Patience(self._settings)
        try:
            while True:
                tell(Began())
                try:
                    await self._answer(path, body, tell)
                    break
                except Fault as fault:
                    wait_s = patience.wait_s(fault)
                    if wait_s is None:
                        raise fault.error from fault.__cause__
                await asyncio.sleep(wait_s)
        except Exception as error:  # noqa: BLE001 - a thread's border: whoever asked gets it
            tell(Broken(error))
        else:
            tell(Ended())

    async def _answer(self, path: str, body: bytes, tell: Tell) -> None:
        """Try once."""
        url, silence_s = self.address.base_url + path, self._settings.silence_s
        async with self._open("POST", url, body, silence_s) as response:
            if not _is_stream(response):  # a server that does not stream answers whole
                value = _json_of(await _body_of(response, self.address), self.address)
                tell(Chunk(_checked(value, self.address)))
                return
            has_ended = False
            async for event in httpx2.EventSource(response, max_event_size=_MOST_EVENT_BYTES):
                if event.data.strip() == _END:
                    has_ended = True
                    break
                if event.data.strip():
                    value = _checked(_json_of(event.data, self.address), self.address)
                    has_ended = has_ended or _has_reason(value)
                    tell(Chunk(value))
        if not has_ended:
            raise broken("broke its answer off.", self.address)

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, url: str, body: bytes, silence_s: float
    ) -> AsyncIterator[httpx2.Response]:
        """Open a successful reply; everything else is a fault."""
        connect_s = self._settings.connect_s
        timeout = httpx2.Timeout(silence_s, connect=connect_s, pool=None)
        client, content = self._client(), body or None
        try:
            async with client.stream(method, url, content=content, timeout=timeout) as response:
                if not response.is_success:
                    text = await _body_of(response, self.address)
                    raise fault_of_status(
                        response.status_code, text, self.address, dict(response.headers)
                    )
                yield response
        except httpx2.TransportError as error:
            raise _fault_of(error, self.address, connect_s, silence_s) from error
        except httpx2.InvalidURL as error:
            raise broken(f"cannot be asked: {error}.", self.address, "see base_url.") from error

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            headers = {"content-type": "application/json"}
            if self.address.key:
                headers["authorization"] = f"Bearer {self.address.key}"
            number = self._settings.max_running
            # Reading the certificates takes half a second, which plain HTTP has no use for.
            has_tls = self.address.base_url.startswith("https:") or self._settings.proxies
            self._http = httpx2.AsyncClient(
                headers=headers,
                limits=httpx2.Limits(max_connections=number, max_keepalive_connections=number),
                verify=has_tls,
                trust_env=self._settings.proxies,
                follow_redirects=False,  # a key is for the address it was given for
            )
        return self._http


def _cancel(future: Future[None]) -> None:
    future.cancel()


def _closed() -> LlavaVideoError:
    return CapacityError("the connection was closed before the answer's end.", "ask again.")


def _is_stream(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "text/event-stream"


async def _body_of(response: httpx2.Response, address: Address) -> str:
    """Read a body, as much of it as anybody would send."""
    pieces: list[bytes] = []
    num_bytes = 0
    async for piece in response.aiter_bytes():
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > _MOST_BODY_BYTES:
            shown = pieces[0][:200].decode(errors="replace")
            raise nonsense(f"more than {_MOST_BODY_BYTES} bytes", shown, address)
    return b"".join(pieces).decode(errors="replace")


def _json_of(text: str, address: Address) -> Any:
    try:
        return json.loads(text)
    except ValueError as cause:
        raise nonsense("no JSON", text, address) from cause


def _checked(value: Any, address: Address) -> Mapping[str, Any]:
    """Return a chunk that is one; an error in its place is raised."""
    if isinstance(value, Mapping) and value.get("error"):
        raise fault_of_stream(value["error"], address)
    if not isinstance(value, Mapping) or not isinstance(value.get("choices"), list):
        raise nonsense("no completion", json.dumps(value), address)
    return value


def _has_reason(value: Mapping[str, Any]) -> bool:
    return any(isinstance(one, Mapping) and one.get("finish_reason") for one in value["choices"])


def _fault_of(
    error: httpx2.TransportError, address: Address, connect_s: float, silence_s: float
) -> Fault:
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return Fault(broken(f"cannot be asked: {error}.", address).error)
    if isinstance(error, httpx2.ConnectTimeout):
        message = f"did not take a connection within {connect_s:g} s."
        return broken(message, address, "is it running, and reachable from here?")
    if isinstance(error, httpx2.TimeoutException):
        message = f"was silent for {silence_s:g} s."
        return broken(message, address, "see its log; silence_s says how long to wait.")
    if isinstance(error, httpx2.ConnectError):
        message = f"cannot be reached: {error}."
        return broken(message, address, "is it running, and reachable from here?")
    words = str(error) or type(error).__name__
    return broken(f"broke the connection off: {words}.", address)
