"""A real browser for tests of pages: Debian's chromium without a window; the tests are skipped where it cannot be had."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 200_000
# MLflow's pages ask for the user of a server without log-in and are told that there is none.
NOT_OURS = ("/users/current",)
NO_ERROR = "You're viewing a shared view"


@contextlib.contextmanager
def browsing() -> Iterator[Any]:
    """A browser for the block, which keeps what it has loaded from page to page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"], headless=True)
        try:
            yield browser.new_context(viewport={"width": 1700, "height": 2400})
        finally:
            browser.close()


def kept(folder: Path, name: str) -> Path:
    """The file of a screenshot: in the folder that FIELDSHIFT_SCREENSHOTS names, to be looked at, else in the given one."""
    place = Path(os.environ.get("FIELDSHIFT_SCREENSHOTS") or folder)
    place.mkdir(parents=True, exist_ok=True)
    return place / name


class Seen:
    """A page as a person sees it: its text, its pictures, and what went wrong on the way."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page()
        self.failed: list[str] = []
        self.clicks = 0
        self.page.on("response", lambda answer: self._note(answer.status >= 400, f"{answer.status} {answer.url}"))
        self.page.on("requestfailed", lambda request: self._note("ERR_ABORTED" not in request.failure, request.url))
        self.page.goto(url, wait_until="load", timeout=WAIT_MS)

    def _note(self, went_wrong: bool, what: str) -> None:
        if went_wrong and not any(part in what for part in NOT_OURS):
            self.failed.append(what)

    def wait_for(self, text: str) -> None:
        """Waits until the text is on the page."""
        self.page.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=WAIT_MS)

    def click(self, what: Any) -> None:
        """Clicks a part of the page; clicks are counted."""
        self.clicks += 1
        what.click(timeout=WAIT_MS)

    def row(self, first: str, count: int) -> list[str]:
        """The first `count` cells to the right of the words with which a row of a table begins, once they are there."""
        beside = """([first, count]) => {
            const written = each => each.textContent.replace(/[^\\x20-\\x7e]/g, "").trim();
            const small = [...document.querySelectorAll("td, th, div, span, a")].filter(each =>
                each.textContent.length < 200 && each.childElementCount < 3 && each.getClientRects().length);
            const named = small.filter(each => written(each) === first).at(-1);
            if (!named) return null;
            const start = named.getBoundingClientRect();
            const own = each => each.childElementCount === 0 && each.closest("table") === named.closest("table");
            const cells = small.filter(each => own(each) && written(each)).map(each => [
                each.getBoundingClientRect(), written(each)]).filter(([box]) => box.x > start.right &&
                Math.abs(box.y + box.height / 2 - start.y - start.height / 2) < 6);
            const found = cells.sort((one, two) => one[0].x - two[0].x).map(each => each[1]);
            return found.length < count ? null : found.slice(0, count);
        }"""
        found = self.page.wait_for_function(beside, arg=[first, count], timeout=WAIT_MS, polling=500).json_value()
        return [str(cell) for cell in found]

    @property
    def text(self) -> str:
        return str(self.page.inner_text("body"))

    def bars(self, count: int) -> list[str]:
        """What is written on the bars of the first chart of bars from top to bottom, once it has as many."""
        self.page.wait_for_function(
            "count => { const plot = document.querySelector('.js-plotly-plot .trace.bars')?.closest('.js-plotly-plot');"
            " return plot && plot.querySelectorAll('.bartext').length >= count }",
            arg=count, timeout=WAIT_MS,
        )  # fmt: skip
        plot = self.page.locator(".js-plotly-plot", has=self.page.locator(".trace.bars")).first
        written = plot.evaluate(
            "plot => [...plot.querySelectorAll('.bartext')].map(each => [each.getBoundingClientRect().y, each.textContent])"
        )
        return [str(text) for _, text in sorted(written)]

    def pictures(self, count: int) -> list[tuple[int, int]]:
        """The natural sizes of the runs' pictures, once as many are loaded."""
        loaded = "[...document.images].filter(each => each.src.includes('get-artifact') && each.complete && each.naturalWidth)"
        self.page.wait_for_function(f"count => {loaded}.length >= count", arg=count, timeout=WAIT_MS)
        sizes = self.page.evaluate(f"{loaded}.map(each => [each.naturalWidth, each.naturalHeight])")
        return [(int(width), int(height)) for width, height in sizes]

    def wait_until_whole(self, what: str, count: int) -> None:
        """Waits until as many parts of the page are seen from edge to edge, none cut by the window or by what scrolls."""
        whole = """([what, count]) => [...document.querySelectorAll(what)].filter(each => {
            const box = each.getBoundingClientRect(), around = each.parentElement;
            const isOnTop = (x, y) => around.contains(document.elementFromPoint(x, y));
            return isOnTop(box.left + 2, box.top + 2) && isOnTop(box.right - 2, box.bottom - 2);
        }).length >= count"""
        self.page.wait_for_function(whole, arg=[what, count], timeout=WAIT_MS)

    def check(self, shot: Path | None = None) -> None:
        """Nothing that was asked for failed, and no message of an error stands on the page; a picture of it is kept."""
        if shot is not None:
            self.page.screenshot(path=str(shot))
        assert self.failed == []
        said = self.page.locator("[role=alert], .ant-notification-notice").all_text_contents()
        assert [text for text in said if not text.startswith(NO_ERROR)] == []

    def close(self) -> None:
        self.page.close()
