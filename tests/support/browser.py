"""A page in a headless Chromium: for tests that it renders, and for measuring how long that takes. Needs `chromium`.

    seen = look(Path("report.html"), [Window(390), Window(1360, dark=True)])
    seen[0].width, seen[0].errors, seen[0].requests

Speaks the DevTools protocol over a WebSocket; no driver is downloaded.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--hide-scrollbars",
)
DRAWN = "document.documentElement.dataset.charts === 'drawn'"
MEASURE = """JSON.stringify({
  width: document.documentElement.scrollWidth, window: innerWidth, height: document.documentElement.scrollHeight,
  charts: document.querySelectorAll(".plot.vega-embed svg").length,
  clipped: [...document.querySelectorAll(".scroll")].filter((one) => one.scrollWidth > one.clientWidth)
    .map((one) => one.getAttribute("aria-label")), places: document.querySelectorAll(".plot").length,
  text: document.body.innerText, data: document.getElementById("report")?.textContent ?? ""})"""


@dataclass(frozen=True)
class Window:
    """How to look."""

    width: int
    dark: bool = False
    height: int = 900


@dataclass
class Seen:
    """What there was to see."""

    width: int = 0
    """Of the page, scrolled parts included."""
    window: int = 0
    height: int = 0
    charts: int = 0
    """Drawn."""
    clipped: list[str] = field(default_factory=list)
    """Names of the tables that are shown and are wider than their place."""
    places: int = 0
    """For charts."""
    text: str = ""
    data: str = ""
    """The report's JSON."""
    seconds: float = 0.0
    """From navigation to the last chart."""
    errors: list[str] = field(default_factory=list)
    """Of the console."""
    requests: list[str] = field(default_factory=list)
    """Of anything but the page itself."""
    picture: bytes = b""


def find_chromium() -> str | None:
    """The browser's command; None: there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def look(page: Path | str, windows: Sequence[Window], *, pictures: bool = False, wait_s: float = 60.0) -> list[Seen]:
    """Open a page in each window in turn.

    Args:
        page: a local file, or an address.
        pictures: take one of the first screen of each, as PNG.

    Raises:
        RuntimeError: there is no browser, or the page was not drawn in time.
    """
    command = find_chromium()
    if command is None:
        raise RuntimeError(f"expected a browser on the PATH, found none of {', '.join(NAMES)}; install chromium")
    with tempfile.TemporaryDirectory(prefix="hardmine-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            return asyncio.run(_look(Path(profile), page, windows, pictures, wait_s))
        finally:
            process.terminate()
            process.wait(timeout=20)


async def _look(profile: Path, page: Path | str, windows: Sequence[Window], pictures: bool, wait_s: float) -> list[Seen]:
    import aiohttp

    port = (await _appears(profile / "DevToolsActivePort", wait_s)).splitlines()[0]
    async with aiohttp.ClientSession() as session:
        seen = []
        for window in windows:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                target = await answer.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=2**28) as socket:
                seen.append(await _Tab(socket).show(page, window, pictures, wait_s))
        return seen


async def _appears(path: Path, wait_s: float) -> str:
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        if path.exists() and (text := path.read_text()):
            return text
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the browser did not start in {wait_s:.0f} s")


class _Tab:
    """One tab: commands and what the browser tells meanwhile."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number, self.seen = socket, 0, Seen()

    async def show(self, page: Path | str, window: Window, pictures: bool, wait_s: float) -> Seen:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=window.width,
            height=window.height,
            deviceScaleFactor=1,
            mobile=window.width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if window.dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        started = time.monotonic()
        await self.send("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        while not await self.value(DRAWN):
            if time.monotonic() - started > wait_s:
                raise RuntimeError(f"{page} was not drawn in {wait_s:.0f} s; the console says {self.seen.errors[:3]}")
            await asyncio.sleep(0.02)
        self.seen.seconds = time.monotonic() - started
        for name, value in json.loads(await self.value(MEASURE)).items():
            setattr(self.seen, name, value)
        if pictures:
            self.seen.picture = base64.b64decode((await self.send("Page.captureScreenshot", format="png"))["data"])
        return self.seen

    async def value(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        return (await self.send("Runtime.evaluate", expression=expression))["result"].get("value")

    async def send(self, method: str, **params: Any) -> Any:
        """A command's result."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                return message.get("result", {})
            self._told(message.get("method"), message.get("params", {}))

    def _told(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.seen.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description", "exception")))
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.seen.errors.append(" ".join(str(found.get("value", "")) for found in params["args"]))
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.seen.errors.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "about:")) and params.get("type") != "Document":
                self.seen.requests.append(url)
