"""The site in a real browser, at the width of a desktop and of a phone. It needs Chromium and playwright."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright import sync_api as playwright

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1300, 400)

TOO_WIDE = """
() => {
  const clips = element => ["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX);
  const scrolls = element => {
    for (let at = element.parentElement; at; at = at.parentElement)
      if (at.matches(".md-content *") && clips(at)) return true;
    return false;
  };
  const wide = [...document.querySelectorAll(".md-content *")].filter(
    element => element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element)
  );
  const found = wide.map(element => element.outerHTML.slice(0, 120));
  return document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways", ...found] : found;
}
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)  # noqa: S603
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address of a server of the site."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.fail("Chromium is not installed: install the package chromium.")
    with playwright.sync_playwright() as drivers:
        browser = drivers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that records errors in `page.problems` and requests in `page.requests`."""
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    page.problems, page.requests = [], []
    page.on("console", lambda message: message.type == "error" and page.problems.append(f"{message.text} {page.url}"))
    page.on("pageerror", lambda error: page.problems.append(f"{error} {page.url}"))
    page.on("response", lambda answer: answer.status >= 400 and page.problems.append(f"{answer.status} {answer.url}"))
    page.on("request", lambda request: page.requests.append(request.url))
    yield page
    page.close()


def pages(site: Path) -> list[str]:
    found = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert len(found) > 40
    return found


def test_no_page_has_an_error_or_an_element_that_is_too_wide_or_asks_the_network(
    site: Path, address: str, page: Any
) -> None:
    wide: dict[tuple[str, int], list[str]] = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for name in pages(site):
            page.goto(address + name)
            if found := page.evaluate(TOO_WIDE):
                wide[name, width] = found
    assert wide == {}
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith((address, "data:", "blob:"))] == []


def test_every_formula_is_typeset(site: Path, page: Any) -> None:
    count = 0
    for name in [name for name in pages(site) if 'class="arithmatex"' in (site / name).read_text(encoding="utf-8")]:
        page.goto((site / name).as_uri())
        formulas = page.locator(".arithmatex")
        assert formulas.count() == page.locator(".arithmatex .katex-html").count()
        assert page.locator(".katex-error").count() == 0
        assert page.evaluate(
            "async () => { await document.fonts.ready; return document.fonts.check('12px KaTeX_Main'); }"
        )
        count += formulas.count()
    assert count >= 10
    assert page.problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests)


@pytest.mark.parametrize("from_disk", [False, True], ids=["over HTTP", "from the disk"])
def test_search_finds_gsam(site: Path, address: str, page: Any, from_disk: bool) -> None:
    page.goto((site / "index.html").as_uri() if from_disk else address + "index.html")
    page.locator(".md-search__input").click()
    page.locator(".md-search-result__meta", has_text="Type to start").wait_for()  # the search index is loaded
    page.locator(".md-search__input").press_sequentially("gsam", delay=50)
    results = page.locator(".md-search-result__item")
    results.first.wait_for()
    assert "gsam" in results.first.inner_text().lower()
    assert page.problems == []
