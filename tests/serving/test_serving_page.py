"""The page in a real browser: clicked together, by keyboard, in both colours, on a narrow screen."""

import shutil
import socket
import threading
import time

import pytest
from parts import make_parts

from recbole_stream import Recommender

pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

import uvicorn  # noqa: E402

from recbole_stream.serving.app import app_of  # noqa: E402
from recbole_stream.serving.schema import Limits  # noqa: E402

MODEL = Recommender(make_parts("verifier"))


@pytest.fixture(scope="module")
def address():
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app_of(MODEL, Limits()), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """Fails on any complaint of the browser."""
    page, faults = browser.new_page(), []
    page.set_default_timeout(20_000)
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.goto(address)
    yield page
    page.close()
    assert faults == []


def shown(page, count: int) -> list[str]:
    """Titles of the recommendations after a history of so many items."""
    playwright.expect(page.get_by_role("status")).to_have_text(f"10 items after a history of {count}")
    return [title.split("\n")[0].rstrip() for title in page.locator("#list .name").evaluate_all(
        "names => names.map(name => name.firstChild.textContent)"
    )]  # fmt: skip


def expected(*items: str) -> list[str]:
    return MODEL.recommend([list(items)], 10)["title"].tolist()


def test_by_mouse(page):
    page.get_by_label("Search items by title").fill("title 12")
    page.get_by_role("option", name="Title 12").click()
    first = shown(page, 1)
    assert first == expected("i12")
    page.get_by_role("button", name=f"Add {first[2]} to the history").click()
    assert shown(page, 2) == expected("i12", "i" + first[2].split()[1])
    page.get_by_role("button", name="Remove Title 12").click()
    assert shown(page, 1) == expected("i" + first[2].split()[1])


def test_by_keyboard_alone(page):
    keys = page.keyboard
    keys.press("Tab")
    keys.type("title 7")
    playwright.expect(page.get_by_role("option")).to_have_count(4)  # and 17, 27, 37
    keys.press("Enter")
    assert shown(page, 1) == expected("i7")
    keys.type("title 3")  # and 13, 23, 30 .. 39, of which 12 are shown
    playwright.expect(page.get_by_role("option")).to_have_text(
        ["Title 3", *(f"Title 3{n}" for n in range(10)), "Title 13"]
    )
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("ArrowUp")
    chosen = page.get_by_role("option", selected=True).inner_text()
    assert page.get_by_role("combobox").get_attribute("aria-activedescendant") == "found-1"
    keys.press("Enter")
    second = "i" + chosen.split()[1]
    assert shown(page, 2) == expected("i7", second)
    keys.press("Escape")
    playwright.expect(page.get_by_role("listbox")).to_be_hidden()
    keys.press("Tab")
    keys.press("Enter")  # the first item's button: Remove
    assert shown(page, 1) == expected(second)
    keys.press("Delete")  # the focus stays in the history
    playwright.expect(page.get_by_role("status")).to_contain_text("as soon as the history has an item")
    playwright.expect(page.get_by_label("Search items by title")).to_be_focused()


def test_why_adds_up_to_the_score(page):
    page.get_by_label("Search items by title").fill("title 5")
    page.get_by_role("option", name="Title 5", exact=True).click()
    titles = shown(page, 1)
    page.get_by_label(f"Why {titles[0]}", exact=True).click()
    cells = page.locator("#list details[open] td.number").all_inner_texts()
    *parts, score = map(float, cells)
    assert sum(parts) == pytest.approx(score, abs=0.005 * len(cells))
    assert score == pytest.approx(MODEL.recommend([["i5"]], 1)["score"][0], abs=0.006)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_colours_and_on_a_narrow_screen(browser, address, scheme):
    page = browser.new_page(color_scheme=scheme, viewport={"width": 340, "height": 700})
    page.goto(address)
    page.get_by_label("Search items by title").fill("title 9")
    page.get_by_role("option", name="Title 9").click()
    shown(page, 1)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    for style in ("body", ".words", "button", ".moved, .faint"):
        text, ground = page.locator(style).first.evaluate(
            "own => [getComputedStyle(own).color, getComputedStyle(own.closest('section') || document.body).backgroundColor]"
        )
        assert contrast(text, ground) >= 4.5, style  # WCAG 2.1, 1.4.3
    page.close()


def contrast(one: str, other: str) -> float:
    """Of two colours "rgb(r, g, b)", by WCAG 2.1."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
