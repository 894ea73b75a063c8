"""The report in a real browser: Chromium as Debian ships it, driven by Playwright, without network.

Screenshots are kept where ZKML_RAY_SCREENSHOTS names a folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.report_runs import failed_run, large_run
from zkml_ray.api import Run
from zkml_ray.report.accuracy import boundary_accuracy
from zkml_ray.report.facts import gather
from zkml_ray.report.page import render
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    # A program of the system, not of this project: pages are tested without it as well
    # (tests/integration/test_run_report.py).
    pytest.skip(
        "Chromium is not installed (Debian: apt-get install chromium)", allow_module_level=True
    )

PHONE, DESK = (390, 844), (1280, 800)
KINDS = ("good", "failed", "large")
PAGE_WIDE = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def pages(
    digits_run: Run, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Report of a good run, a failed one, and one of 500 chunks, as files."""
    folder = tmp_path_factory.mktemp("pages")
    store = Path(digits_run.store.removeprefix("file://"))
    runs = {
        "good": (store, digits_run.project, digits_run.run_id),
        "failed": (*_default(failed_run(models / "mlp.onnx", folder)),),
        "large": (*_default(large_run(store, digits_run.project, digits_run.run_id, 500, folder)),),
    }
    found = {}
    for kind, (where, project, run_id) in runs.items():
        opened = open_store(str(where))
        facts = gather(opened, RunLayout(project, run_id))
        found[kind] = folder / f"{kind}.html"
        found[kind].write_text(render(facts, boundary_accuracy(facts, opened)), encoding="utf-8")
    return found


def _default(run: tuple[Path, str]) -> tuple[Path, str, str]:
    store, run_id = run
    return store, "default", run_id


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Visit:
    """A page opened in a window of its own; what it logs and asks for is kept."""

    def __init__(self, browser: Any, path: Path, size: tuple[int, int], scheme: str) -> None:
        width, height = size
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            offline=True,
        )
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_error: object) -> None:
        self.context.close()

    def keep(self, name: str) -> None:
        if folder := os.environ.get("ZKML_RAY_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("kind", KINDS)
def test_page_shows_its_verdict_at_once_and_asks_for_nothing(
    browser: Any, pages: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    scheme = "dark" if size == PHONE else "light"
    with Visit(browser, pages[kind], size, scheme) as visit:
        box = visit.page.locator("#verdict").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= size[1], "without scrolling"
        word = {"good": "VERIFIED", "failed": "FAILED", "large": "REFUSED"}[kind]
        assert word in visit.page.locator("#verdict").inner_text()
        assert visit.page.evaluate(PAGE_WIDE), "nothing is wider than the window"
        visit.keep(f"{kind}-{size[0]}-{scheme}")
        assert visit.errors == []
        others = [url for url in visit.requests if not url.startswith("data:")]
        assert others == [pages[kind].as_uri()]


def test_boundary_opens_by_click_on_its_line_and_on_the_graph(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Visit(browser, pages["good"], DESK, "light") as visit:
        details = visit.page.locator("details.boundary")
        first, second = details.nth(0), details.nth(1)
        assert not first.locator("dl").is_visible()
        first.locator("summary").click()
        assert first.locator("dl").is_visible()
        assert not second.locator("dl").is_visible()
        visit.page.locator('a.mark[href="#boundary-1"]').first.click()
        second.locator("dl").wait_for(state="visible", timeout=5_000)
        assert second.locator("dl").is_visible(), "the graph's lock leads to its details"


def test_boundary_opens_by_keys_alone(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["good"], DESK, "light") as visit:
        third = visit.page.locator("details.boundary").nth(2)
        third.locator("summary").focus()
        visit.page.keyboard.press("Enter")
        assert third.locator("dl").is_visible()
        link = visit.page.locator('a.mark[href="#boundary-1"]').first
        link.focus()
        visit.page.keyboard.press("Enter")
        second = visit.page.locator("details.boundary").nth(1).locator("dl")
        second.wait_for(state="visible", timeout=5_000)


def test_first_tab_skips_to_the_report(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["good"], DESK, "light") as visit:
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate("document.activeElement.textContent")
        assert focused == "Skip to the report"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["good", "failed", pytest.param("large", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious(
    browser: Any, pages: dict[str, Path], kind: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with Visit(browser, pages[kind], DESK, scheme) as visit:
        # The page's own policy keeps scripts out, axe's too: a copy without it is examined.
        text = pages[kind].read_text(encoding="utf-8")
        policy = text.partition('<meta http-equiv="Content-Security-Policy"')[2].partition(">")[0]
        assert policy
        visit.page.set_content(
            text.replace(f'<meta http-equiv="Content-Security-Policy"{policy}>', "")
        )
        if kind != "large":
            visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        found = axe.Axe().run(visit.page).response["violations"]
        grave = [
            (entry["id"], entry["nodes"][0]["html"][:200], entry["nodes"][0]["failureSummary"])
            for entry in found
            if entry["impact"] in ("serious", "critical")
        ]
        assert grave == []


def test_printed_page_shows_what_is_folded(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["good"], DESK, "light") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.locator("details.boundary dl").first.is_visible()
        if folder := os.environ.get("ZKML_RAY_SCREENSHOTS"):
            visit.page.pdf(path=str(Path(folder) / "good.pdf"))
