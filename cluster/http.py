"""Requests to a server that speaks JSON: several at once, tried again where a second try can help, the key from the environment.

    server = Server("http://127.0.0.1:8080/rerank", setting="mining.teacher.url", key="HARDMINE_TEACHER_KEY")
    with Client(server) as client:
        for item, scores in client.over(items, lambda item: client.ask(body_of(item), scores_of)):
            ...

What is tried again: no connection, a connection that is cut, a timeout, an answer that is not JSON or not what was asked for,
and the statuses in AGAIN. A server that says when to come back (Retry-After) is left alone until then by all requests.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from cluster.errors import ClusterError, ConfigError, HardmineError, one_paragraph

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
K = TypeVar("K")

AGAIN = frozenset({408, 409, 424, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses of a server that is overloaded, starts, or failed once (text-embeddings-inference says 424 for that)."""
BUSY = frozenset({429, 503, 529})
"""Those that say "later": they are no failure as long as others of our requests are answered."""
PATIENCE_S = 600.0
"""How long a server may say "later" without answering a single request, and the longest wait it may ask for."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between two attempts; each pause is twice the one before."""
BAD_ANSWERS = 3
"""Attempts on a request whose answers are not what was asked for."""
SECRET = ("key", "token", "secret", "password", "sig", "auth")
QUOTED = 300
"""Letters of a server's answer that a message shows."""


class Refused(ConfigError):  # noqa: N818  what the server did
    """The server understood a request and refuses it."""

    status: int = 0
    """The HTTP status; 0 once the error has travelled between processes."""


def http_address(address: str) -> str:
    """`address`, if a request can be sent to it. Raises ValueError: it is no http address, or holds a key."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise ValueError(f"expected an address like http://host:8080/path, found {address!r}")
    if parts.username or any(word in name.lower() for name, _ in parse_qsl(parts.query) for word in SECRET):
        raise ValueError("an address must not hold keys; take them out and put the key into the environment variable")
    return address


@dataclass(frozen=True)
class Server:
    """A server that the settings name; holds no key, and can be sent to any process."""

    address: str
    """As `http_address` lets it pass; all requests go there."""
    setting: str
    """Full name of the setting that holds the address; messages name it."""
    key: str
    """Environment variable whose value is sent as a bearer token; without one no token is sent."""
    at_once: int = 8
    """Requests under way at the same time, at most."""
    attempts: int = 8
    """Of each request; the pauses between them add up to about a minute."""
    timeout_s: float = 120.0
    """Longest silence of the server."""


class _Again(Exception):  # noqa: N818  what is to be done
    """This attempt failed, another may not."""

    def __init__(self, problem: str, *, busy: bool = False, wait_s: float | None = None) -> None:
        super().__init__(problem)
        self.busy, self.wait_s = busy, wait_s


class Client:
    """Connections to one server, for any number of threads; closed by leaving its context."""

    def __init__(self, server: Server) -> None:
        """Raises ConfigError: the key cannot be sent."""
        import httpx

        self.server = server
        self.retries = 0
        """Attempts that failed and were made again."""
        self._key = os.environ.get(server.key, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ConfigError(f"the key in {server.key} has line breaks or letters that no key has; set it again")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(server.timeout_s, connect=10.0, pool=None),
            limits=httpx.Limits(max_connections=server.at_once, max_keepalive_connections=server.at_once),
        )
        self._threads = ThreadPoolExecutor(server.at_once, thread_name_prefix="http")
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._not_before = 0.0  # by the monotonic clock; of all requests
        self._last_answer, self._later = time.monotonic(), 0  # "later"s since then

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._threads.shutdown(cancel_futures=True)
        self._http.close()

    def over(self, items: Iterable[K], work: Callable[[K], T]) -> Iterator[tuple[K, T]]:
        """(item, `work(item)`) of each item, in the order in which they are done; server.at_once at a time.

        Args:
            items: read as they are needed.
            work: called in threads; most often a call of `ask`. What it raises first is raised here, and no more work starts.
        """
        under_way: dict[Future[T], K] = {}
        try:
            for item in items:
                under_way[self._threads.submit(work, item)] = item
                if len(under_way) >= 2 * self.server.at_once:
                    yield from _finished(under_way)
            while under_way:
                yield from _finished(under_way)
        finally:
            for future in under_way:
                future.cancel()

    def ask(self, body: Any, read: Callable[[Any], T]) -> T:
        """What `read` makes of the server's answer to one POST of `body`.

        Args:
            body: becomes JSON. read: takes the answer's JSON; raises ValueError, with a text that continues "the answer …", if
                it is not what was asked for.

        Raises:
            Refused: the server refuses this request. ConfigError: it refuses the key or the address, or its answers are not
                what was asked for. ClusterError: it does not answer.
        """
        first, bad, attempt = time.monotonic(), 0, 0
        while True:
            self._pause()
            try:
                answer = self._post(body)
            except _Again as failure:
                attempt += not failure.busy
                since = max(first, self._last_answer)
                if attempt >= self.server.attempts or (failure.busy and time.monotonic() - since > PATIENCE_S):
                    raise self._gave_up(failure, attempt) from failure.__cause__
                self._put_off(failure, attempt)
                continue
            self._last_answer, self._later = time.monotonic(), 0
            try:
                return read(answer)
            except ValueError as error:
                bad += 1
                if bad == BAD_ANSWERS:
                    raise ConfigError(
                        f"{self._name}: the answer {one_paragraph(str(error))}; it begins {self._quoted(str(answer))}. Check "
                        f"what serves this address"
                    ) from error
                self._put_off(_Again(str(error)), bad)

    def _post(self, body: Any) -> Any:
        """The JSON of one answer. Raises _Again, or an error that no second attempt mends."""
        import httpx

        try:
            response = self._http.post(self.server.address, json=body)
        except httpx.TransportError as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        except RuntimeError as error:  # httpx: the client was closed
            raise _Again(str(error)) from error
        if response.status_code in AGAIN:
            busy, wait_s = response.status_code in BUSY, _retry_after(response.headers.get("Retry-After"))
            raise _Again(f"HTTP {response.status_code}: {self._quoted(response.text)}", busy=busy, wait_s=wait_s)
        if not response.is_success:
            raise self._refused(response)
        try:
            return response.json()
        except ValueError as error:
            raise _Again(f"no JSON but {self._quoted(response.text)}") from error

    def _pause(self) -> None:
        """Wait until a request may be sent. Raises ClusterError: the client was closed meanwhile."""
        while (left := self._not_before - time.monotonic()) > 0:
            if self._closed.wait(left):
                break
        if self._closed.is_set():
            raise ClusterError(f"{self._name}: requests end here, because another one failed")

    def _put_off(self, failure: _Again, attempt: int) -> None:
        """Pause before the next attempt: this request, or all of them where the server is busy."""
        with self._lock:
            self.retries += 1
            self._later += failure.busy
            tries = min(10.0, self._later / self.server.at_once if failure.busy else attempt - 1)  # 2**10 is past the longest
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**tries) * random.uniform(0.5, 1.0)
            seconds = pause if failure.wait_s is None else failure.wait_s
            if failure.busy:
                self._not_before = max(self._not_before, time.monotonic() + seconds)
        if not failure.busy:
            self._closed.wait(seconds)

    def _gave_up(self, failure: _Again, attempts: int) -> HardmineError:
        how = f"for {PATIENCE_S / 60:.0f} minutes" if failure.busy else f"after {attempts} attempts"
        return ClusterError(
            f"{self._name}: no usable answer {how} ({one_paragraph(str(failure))}); check that the server runs and can be "
            f"reached from here, then run the same command again"
        )

    def _refused(self, response: httpx.Response) -> ConfigError:
        status, text = response.status_code, self._quoted(response.text)
        if status in (401, 403):
            has = f"the key in {self.server.key}" if self._key else f"a request without a key ({self.server.key} is not set)"
            return ConfigError(f"{self._name}: the server refuses {has} (HTTP {status}: {text}); set a valid one")
        if response.is_redirect:
            return ConfigError(f"{self._name}: leads to {response.headers.get('Location')}; set the address where it ends")
        if status in (404, 405):
            return ConfigError(
                f"{self._name}: nothing there answers such requests (HTTP {status}: {text}); give the whole address with its "
                f"path, and the name of a model that is served"
            )
        error = Refused(f"{self._name}: the server refuses a request (HTTP {status}: {text}); check its address and its model")
        error.status = status
        return error

    @property
    def _name(self) -> str:
        return f"{self.server.setting} = {self.server.address}"

    def _quoted(self, text: str) -> str:
        """A server's words for a message: short, on one line, without the key that some of them repeat."""
        line = one_paragraph(text.replace(self._key, "…") if self._key else text)
        return repr(line if len(line) <= QUOTED else f"{line[:QUOTED]}…")


def _finished(under_way: dict[Future[T], K]) -> Iterator[tuple[K, T]]:
    """The items that are done, at least one; they are taken out of `under_way`."""
    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
        yield under_way.pop(future), future.result()


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, a number or a date; None: it says nothing usable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a time zone
            return None
    return None if math.isnan(seconds) else min(PATIENCE_S, max(0.0, seconds))
