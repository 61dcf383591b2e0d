"""The playground in headless Chromium, before a server process with the tiny model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from icae.memory import memory_from_bytes
from icae.serve.keys import add_key

CHROMIUM = os.environ.get("ICAE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 60_000
TEXT = "The fox is in the inn near the end. It sleeps. " * 2
HOSTILE = "<img src=x onerror=alert(1)> \N{FOX FACE}\N{FOX FACE} & <b>the end</b> of 1861. "

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NO CHROMIUM: the playground is not tested (apt-get install chromium)",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Addresses of a server without keys and of one with keys, and a key to it."""

    open: str
    keyed: str
    key: str


@pytest.fixture(scope="module")
def servers(
    serving: Callable[..., Any], tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Two server processes, started side by side."""
    folder = tmp_path_factory.mktemp("playground")
    key = add_key(folder / "keys.txt", "anna")
    options = ((), ("--keys", folder / "keys.txt"))
    with ExitStack() as stack, ThreadPoolExecutor(len(options)) as pool:
        started = [
            pool.submit(
                stack.enter_context, serving(folder / f"{at}.db", "--adapter", tiny_adapter, *own)
            )
            for at, own in enumerate(options)
        ]
        (_, without), (_, keyed) = (one.result() for one in started)
        yield Servers(open=without, keyed=keyed, key=key)


@pytest.fixture
def server(servers: Servers) -> str:
    """The address of the server without keys."""
    return servers.open


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(url, width=..., ...)``: a page in a fresh profile.

    At the end nothing may have gone wrong in it, nor been asked of anybody but the server.
    """
    contexts, wrong, asked = [], [], []

    def open_at(url: str, *, width: int = 1200, **profile: Any) -> Any:
        origin = "/".join(url.split("/")[:3])
        context = chromium.new_context(viewport={"width": width, "height": 900}, **profile)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda said: wrong.append(said.text) if _is_bad(said) else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append((origin, request.url)))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', "
            "(event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));"
        )
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert wrong == []
    assert [to for own, to in asked if not to.startswith((own, "blob:"))] == []


def _is_bad(said: Any) -> bool:
    """Errors and warnings; a browser also notes each response that refuses, which we expect."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text


def compress(page: Any, text: str, name: str) -> None:
    page.get_by_label("Document").fill(text)
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Compress").click()
    page.get_by_role("heading", name="What it holds").wait_for()


def drop(page: Any, file: Path) -> None:
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(bytes)], name));
            return transfer;
        }""",
        [file.name, list(file.read_bytes())],
    )
    page.dispatch_event("form.new-memory", "drop", {"dataTransfer": transfer})


def require_accessible(page: Any) -> None:
    """axe-core finds nothing, not even a target too small for a finger; no scrolling sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="NO AXE-CORE")
    options = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
    found = axe.Axe().run(page, options=options)
    assert found.violations_count == 0, found.generate_report()
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def reached_by_tab(page: Any) -> int:
    """How many controls of the page there are; Tab has to come to each, and to show it."""
    controls = """() => [...document.querySelectorAll(
        "a[href], button, input:not([type=radio]:not(:checked)), select, textarea, summary, "
        + "[tabindex='0']",
    )].filter((one) => one.checkVisibility() && !one.disabled)"""
    count = int(page.evaluate(f"({controls})().length"))
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(2 * count):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"({controls})().indexOf(document.activeElement)"))
    missed = set(range(count)) - reached
    html = [page.evaluate(f"({controls})()[{at}].outerHTML") for at in sorted(missed)]
    assert html == []
    return count


def shown_text(page: Any) -> str:
    return "".join(page.locator(".text .span").all_text_contents())


def test_a_text_is_compressed_shaded_asked_on_both_sides_and_deleted(
    server: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(server)
    assert page.url == f"{server}/playground/"
    compress(page, TEXT, "to be deleted")
    listed = page.get_by_role("navigation").get_by_role("link", name="to be deleted")
    listed.wait_for()

    assert shown_text(page) == TEXT
    lost = page.locator(".text .lost").first
    assert "rgba(225, 60, 40" in lost.evaluate("one => getComputedStyle(one).backgroundColor")
    spans = page.get_by_role("listbox", name="Spans")
    spans.press("End")
    cells = spans.get_by_role("option")
    assert cells.count() == page.locator(".text .span").count() > 1
    assert cells.last.get_attribute("aria-selected") == "true"
    assert "marked" in (page.locator(".text .span").last.get_attribute("class") or "")

    page.get_by_label("At most").select_option("32")
    page.get_by_label("Question").fill("Where is the fox?")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="The answers are there.").wait_for(state="attached")
    sides = page.locator(".side-answer")
    assert sides.locator("h4").all_inner_texts() == ["With the memory", "With the full text"]
    assert all(text.strip() for text in sides.locator(".answer").all_text_contents())
    read = [one.locator("dd").first.inner_text().split()[0] for one in sides.all()]
    memory, full = (int(tokens.replace(",", "")) for tokens in read)
    assert memory < full
    assert sides.nth(0).locator("dt").all_inner_texts() == [
        "Tokens read",
        "KV cache",
        "First token",
        "Last token",
    ]

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Compress a document").wait_for()
    listed.wait_for(state="detached")
    assert "to be deleted" not in httpx2.get(f"{server}/v1/memories").text


def test_a_file_held_at_a_minimal_fidelity_shows_what_stayed_verbatim_and_comes_back_as_a_file(
    server: str, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    document = tmp_path / "fox.html"
    document.write_text(f"<!doctype html><body><p>{TEXT}</p></body>", encoding="utf-8")
    page = open_page(server)
    page.get_by_label("Choose a file").set_input_files(document)
    page.get_by_role("slider", name="Minimal fidelity").fill("100")
    page.get_by_role("button", name="Compress").click()
    page.get_by_role("heading", name="What it holds").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "fox.html"

    assert shown_text(page).strip() == TEXT.strip()
    assert page.locator(".text .span:not(.verbatim)").count() == 0
    edited = shown_text(page).replace("fox", "\N{FOX FACE}", 1) + "It wakes."
    page.get_by_text("Edit the text").click()
    page.get_by_label("Only the spans that a change touches").fill(edited)
    page.get_by_role("button", name="Save").click()
    page.locator("#said", has_text="The text is changed.").wait_for(state="attached")
    assert shown_text(page) == edited

    with page.expect_download() as download:
        page.get_by_role("button", name="Download .icae").click()
    kept = tmp_path / download.value.suggested_filename
    download.value.save_as(kept)
    assert kept.name == "fox.icae"
    memory = memory_from_bytes(kept.read_bytes(), where=kept.name)
    assert (memory.documents[0].source or "").endswith("It wakes.")

    page.get_by_role("link", name="New memory").click()
    drop(page, kept)
    page.get_by_role("button", name="Import").click()
    page.get_by_role("heading", name="What it holds").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "fox"
    assert shown_text(page).endswith("It wakes.")


def test_markup_in_a_document_stays_text_and_a_narrow_window_holds_it(
    server: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(server, width=360)
    compress(page, HOSTILE, HOSTILE)
    assert shown_text(page) == HOSTILE
    assert page.locator("main img, main b").count() == 0
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE.strip()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_the_server_refuses_is_told_in_plain_words(
    server: str, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page(f"{server}/playground/#mem_{'0' * 24}")
    assert page.get_by_role("alert").inner_text() == "This memory is no longer there."
    page.get_by_role("link", name="New memory").click()
    page.get_by_role("button", name="Compress").click()
    assert page.get_by_role("alert").inner_text() == "Paste a text or choose a file first."
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.4 broken")
    page.get_by_label("Choose a file").set_input_files(broken)
    page.get_by_role("button", name="Compress").click()
    told = page.get_by_text("The PDF cannot be read.").inner_text()
    assert told == (
        "The PDF cannot be read. Expected: an undamaged PDF. "
        "Open it in a viewer and print it to a new PDF."
    )
    page.get_by_role("button", name="Use a text instead").click()
    compress(page, TEXT * 4, "long")
    page.get_by_label("Question").fill("Where?")
    page.get_by_role("button", name="Ask").click()
    refused = page.locator(".side-answer").nth(1).get_by_role("alert")
    assert "does not fit the model's context window" in refused.inner_text()


def test_a_server_with_keys_is_used_with_the_key_that_the_page_asks_for(
    servers: Servers, open_page: Callable[..., Any]
) -> None:
    page = open_page(servers.keyed)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    dialog.get_by_text("The server does not know this key.").wait_for()
    dialog.get_by_label("Key").fill(servers.key)
    dialog.get_by_role("button", name="Use the key").click()
    compress(page, TEXT, "fox")
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    page.get_by_role("button", name="Forget the key").click()
    dialog.get_by_role("button", name="Not now").click()
    page.get_by_text("The server asks for an API key.").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize(
    ("width", "profile", "cell"),
    [(390, {"has_touch": True, "is_mobile": True}, 24), (1280, {"color_scheme": "dark"}, 14)],
)
def test_all_of_it_is_for_phones_keyboards_and_screen_readers(
    server: str, open_page: Callable[..., Any], width: int, profile: dict[str, Any], cell: int
) -> None:
    page = open_page(server, width=width, **profile)
    page.get_by_role("heading", name="Compress a document").wait_for()
    require_accessible(page)
    assert reached_by_tab(page) >= 7
    compress(page, TEXT * 3, "a name that is too long for a narrow list of memories")
    spans = page.get_by_role("listbox", name="Spans")
    spans.press("End")
    assert spans.get_by_role("option").first.bounding_box()["width"] == cell
    page.get_by_text("as a table").click()
    page.get_by_text("Edit the text").click()
    page.get_by_label("At most").select_option("32")
    page.get_by_label("Question").fill("Where is the fox?")
    page.get_by_role("button", name="Ask").click()
    page.locator("#said", has_text="The answers are there.").wait_for(state="attached")
    require_accessible(page)
    assert reached_by_tab(page) >= 15
    page.get_by_role("button", name="Delete").press("Enter")
    require_accessible(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Compress a document").wait_for()


def test_a_file_that_takes_long_to_be_sent_shows_how_much_of_it_is(
    server: str, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    document = tmp_path / "fox.txt"
    document.write_text(TEXT, encoding="utf-8")
    page = open_page(server, width=390)
    held: list[Any] = []
    page.route("**/v1/memories", lambda route: held.append(route))
    page.get_by_label("Choose a file").set_input_files(document)
    page.get_by_role("button", name="Compress").click()
    sent = page.get_by_role("progressbar", name="File sent")
    sent.wait_for()
    assert sent.get_attribute("value") is not None
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    page.get_by_role("heading", name="What it holds").wait_for()
    assert shown_text(page) == TEXT
