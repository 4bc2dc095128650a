"""Who may ask, and how often: the key that a request brings, its rate, and what is answered without one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dulian.errors import AccessError, DulianError, KeysFileError, MalformedInputError, RateLimitError
from dulian.keys import PREFIX, Key, KeyRing, KeysFile, find_keys_file
from dulian.service.admission import Caller
from dulian.service.answers import error_answer
from dulian.service.body import RequestBody
from dulian.service.log import log_event
from dulian.service.security import host_allowed
from dulian.service.start import is_own_address

if TYPE_CHECKING:
    from dulian.service.rates import Rates
    from dulian.service.state import Service
    from dulian.settings import Settings

# A change of the file counts after so long at most.
CHECK_INTERVAL_S = 2.0

# Everything else needs a key, what does not exist included.
FREE_PATHS = frozenset(
    {"/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/docs", "/model-card"}
)
FREE_FOLDERS = ("/docs/", "/static/")

_NEEDED = "this needs a valid key, as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"


def is_free(path: str) -> bool:
    """Whether everybody gets what is at this path: probes, and what shows how to ask."""
    return path in FREE_PATHS or path.startswith(FREE_FOLDERS)


class Access:
    """The keys that are asked for, as their file says now or said when it last could be read.

    Without a file nobody needs a key. Once there was one, it takes a restart to ask for none.
    """

    def __init__(
        self,
        file: KeysFile | None = None,
        *,
        required: bool = False,
        hosts: frozenset[str] | None = None,
        memory: int | None = None,
    ) -> None:
        """A ``required`` file has to exist. ``memory`` is a descriptor of what processes share to count together.

        ``hosts`` are names that a request's Host may have, beside those of this machine, where no key is asked for;
        with None it may be anything.

        Raises:
            KeysFileError: The file cannot be read, is no file of keys, or is missing.
        """
        self._file = file
        self._hosts = hosts
        self._signature: tuple[int, ...] | None = None
        self._look_at = time.monotonic() + CHECK_INTERVAL_S
        self._looking = False
        self._troubled = False
        self._memory = memory
        self._rates: Rates | None = None
        self.keys: KeyRing | None = None
        if file is not None and not self._read(file) and required:
            raise file.missing()

    async def admit(self, path: str, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Who sends this request; None where nobody needs a key.

        Raises:
            AccessError: It needs a key and has none that is valid.
            RateLimitError: The key has used up its rate.
            MalformedInputError: It is meant for another host.
        """
        if is_free(path):
            return None
        await self._keep_up()
        if self.keys is None:
            if self._hosts is not None and not host_allowed(headers, self._hosts):
                raise MalformedInputError(
                    "the Host of this request is no name of this machine; whoever runs the service can allow others"
                    " with --allowed-host (DULIAN_ALLOWED_HOSTS)"
                )
            return None
        key = self.keys.find(presented_key(headers))
        if key is None:
            raise AccessError(_NEEDED)
        self._spend(key, 1)
        return Caller(key.id, sharing=len(self.keys) > 1)

    def is_open_to(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with these headers needs no key, as far as is known without a look at the file."""
        return self.keys is None and (self._hosts is None or host_allowed(headers, self._hosts))

    async def charge(self, caller: Caller | None, count: int = 1) -> None:
        """Take further pictures off the rate of a caller who was admitted: of a batch, or of a stream.

        Raises:
            AccessError: Its key has been revoked since.
            RateLimitError: The key has used up its rate.
        """
        await self._keep_up()
        if caller is None or self.keys is None:
            return
        key = self.keys.get(caller.key_id)
        if key is None:
            raise AccessError(_NEEDED)
        self._spend(key, count)

    def _spend(self, key: Key, count: int) -> None:
        if key.rate is None or self._rates is None:
            return
        wait_s = self._rates.spend(key.id, key.rate, count)
        if wait_s is not None:
            raise RateLimitError(f"this key is good for {key.rate.count} per {key.rate.period}", wait_s=wait_s)

    async def _keep_up(self) -> None:
        """Have a thread look at the file if nobody has for a while; the request that notices waits for it."""
        if self._file is None or self._looking or time.monotonic() < self._look_at:
            return
        self._looking = True
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._look, self._file)
        finally:
            self._look_at = time.monotonic() + CHECK_INTERVAL_S
            self._looking = False

    def _look(self, file: KeysFile) -> None:
        try:
            changed = self._read(file)
        except KeysFileError as error:
            if not self._troubled:
                log_event("keys_kept", level=logging.WARNING, reason=str(error), keys=len(self.keys or ()))
            self._troubled = True
            return
        self._troubled = False
        if changed:
            log_event("keys_changed", keys=len(self.keys or ()))

    def _read(self, file: KeysFile) -> bool:
        """Take over what the file says, if it is another than before."""
        # The signature is older than what is read: a change in between is seen the next time.
        signature = file.signature()
        if signature == self._signature:
            return False
        if signature is not None and self.keys is None:
            self.keys = KeyRing(())  # there is a file: whatever is in it, nobody gets in without a key any more
        keys = file.read()
        if keys is None:
            raise file.missing()
        if any(key.rate for key in keys) and self._rates is None:
            from dulian.service.rates import Rates

            self._rates = Rates(self._memory)
        self.keys = KeyRing(keys)
        self._signature = signature
        return True


def open_access(settings: Settings, memory: int | None = None) -> Access:
    """Access as it is set: by the file of keys, and by who can reach the service at all.

    Raises:
        KeysFileError: The file is no file of keys, or is named and missing.
    """
    names_matter = settings.allowed_hosts or is_own_address(settings.host)
    return Access(
        find_keys_file(settings.keys_file),
        required=settings.keys_file is not None,
        hosts=frozenset(settings.allowed_hosts) if names_matter else None,
        memory=memory,
    )


def presented_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key that a request brings, if any. X-API-Key comes first: Authorization may be meant for a proxy on the way.

    A script in a browser can give a WebSocket no headers but subprotocols: one that looks like a key is taken for it.
    A key in a URL is none: URLs end up in logs and histories.
    """
    if key := headers.get(b"x-api-key"):
        return key.strip()
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return key.strip()
    protocols = headers.get(b"sec-websocket-protocol", b"").split(b",")
    return next((name for name in map(bytes.strip, protocols) if name.startswith(PREFIX.encode())), b"")


class Gate:
    """Lets nobody in whom :class:`Access` does not admit; asked before a byte of a body is read."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        # What the service asks itself brings its caller along; no client can do that.
        if "caller" not in state and scope["type"] in ("http", "websocket"):
            headers = dict(scope["headers"])
            try:
                state["caller"] = await self._service.access.admit(scope["path"], headers)
            except DulianError as error:
                await self._refusal(error, scope, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, error: DulianError, scope: Scope, headers: dict[bytes, bytes]) -> Response:
        if isinstance(error, RateLimitError):
            self._service.metrics.count_rejected("rate")
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        close = has_body and RequestBody(headers, self._service.limits).must_close
        return error_answer(error, scope["state"]["request_id"], close=close, path=scope["path"])
