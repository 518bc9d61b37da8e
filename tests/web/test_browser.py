from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from bisection_tales import tell_bisections, tell_result
from playwright.sync_api import Browser, Page, expect, sync_playwright
from weblab import Demo

from lab.flights.status import StepStatus

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHIFT = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => list.getEntries().forEach(e => { sum += e.value; window.shifted = sum; }))
    .observe({type: 'layout-shift', buffered: false});
  window.shifted = 0;
  done();
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A page that must end without a complaint on its console; it is closed before the server is."""
    complaints: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(15_000)
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    opened.close()
    assert complaints == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/flights/3",
        "/branches",
        "/compare/1/3",
        "/history/test-amd64-xsm",
        "/flights/3/jobs/test-amd64-xsm",
        "/hosts",
        "/hosts/emu1",
        "/plan",
        "/queue",
    ],
)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_shows_itself_without_complaint_and_fits(page: Page, url: str, path: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(url + path)
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("#theme")).to_have_text("auto")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_bisection_shows_each_run_as_it_ends(page: Page, demo: Demo, url: str) -> None:
    number = tell_bisections(demo)["running"]
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(f"{url}/bisections/{number}")
        expect(page.locator("#link-state")).to_have_text("live")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    marks = page.locator(".range .m-running")
    before = marks.count()
    assert before > 0
    tell_result(demo, number)
    expect(marks).to_have_count(before - 1, timeout=5_000)


def test_a_step_that_ends_shows_at_once_and_nothing_moves(page: Page, demo: Demo, url: str) -> None:
    page.goto(f"{url}/flights/3")
    expect(page.locator("#link-state")).to_have_text("live")
    cell = page.locator('tr[id="r-guest-create"] td').nth(1)
    expect(cell).to_have_attribute("data-status", "running")
    page.locator("[data-filter]").fill("half a word")
    page.evaluate("document.querySelector('.grid-scroll').scrollTop = 40")
    page.evaluate(SHIFT)
    demo.finish_step()
    expect(cell).to_have_attribute("data-status", "pass", timeout=5_000)
    assert page.locator("[data-filter]").input_value() == "half a word"
    assert page.evaluate("document.querySelector('.grid-scroll').scrollTop") in (0, 40)
    page.wait_for_timeout(300)
    assert page.evaluate("window.shifted") < 0.01


def test_a_step_that_fails_opens_and_what_was_opened_stays(page: Page, demo: Demo, url: str) -> None:
    page.goto(f"{url}/flights/3/jobs/test-amd64-xl-pvh")
    expect(page.locator("#link-state")).to_have_text("live")
    page.locator("#s-1 summary").click()
    page.locator("#s-8 summary").click()
    expect(page.locator("#s-8 details")).not_to_have_attribute("open", "")
    demo.finish_step(status=StepStatus.FAIL, reason="the guest did not come up")
    expect(page.locator("#s-8 summary")).to_contain_text("the guest did not come up")
    expect(page.locator("#s-8 details")).to_have_attribute("open", "")
    expect(page.locator("#s-1 details")).to_have_attribute("open", "")
    expect(page.locator("#s-1 .log")).to_contain_text("xl something 11")


def test_a_console_is_followed_live(page: Page, demo: Demo, url: str) -> None:
    page.goto(f"{url}/hosts/emu1")
    log = page.locator(".log")
    expect(log).to_contain_text("dom0 login: <script>alert(2)</script>")
    with (demo.lab.settings.home / "hosts" / "emu1" / "console.log").open("ab") as file:
        file.write(b"(XEN) \x1b[1mone more line\x1b[0m\r\n")
    expect(log).to_contain_text("(XEN) one more line")
    assert log.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 8
    log.evaluate("e => { e.scrollTop = 0 }")
    expect(page.locator("[data-follow]")).not_to_be_checked()


def test_the_theme_is_that_of_the_system_until_chosen_and_remembered(page: Page, url: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(url)
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(back)
    page.locator("#theme").click()
    light = page.evaluate(back)
    assert dark != light
    page.reload()
    assert page.evaluate(back) == light


def test_keys_lead_to_pages_and_to_the_filter(page: Page, url: str) -> None:
    page.goto(url)
    page.keyboard.press("/")
    expect(page.locator("[data-filter]")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url(f"{url}/hosts")


def test_a_link_to_a_step_opens_it(page: Page, url: str) -> None:
    page.goto(f"{url}/flights/3/jobs/test-amd64-xl#s-3")
    expect(page.locator("#s-3 .log")).to_contain_text("xl something 11")


def test_pages_read_without_javascript(browser: Browser, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{url}/flights/3/jobs/test-amd64-xsm")
    expect(page.locator("#s-9 .evidence pre").first).to_contain_text("<script>alert(1)</script>")
    expect(page.locator("#s-9 .log")).to_contain_text("xl something 11")
    expect(page.locator("#theme")).to_be_hidden()
    context.close()
