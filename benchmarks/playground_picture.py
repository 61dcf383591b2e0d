"""The picture of the playground in the docs, of a server that runs on an idle machine.

icae serve --store picture.db
python benchmarks/playground_picture.py http://127.0.0.1:8000 docs/img/playground.png
    [--document examples/pep-0347.txt] [--chars 2700] [--min-fidelity 85] [--chromium PATH]

A document is compressed and asked on the page as a person would; the seconds on the picture are
of that machine.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

QUESTION = "What is the first step of the migration procedure?"
WIDTH, HEIGHT = 1280, 1000
WAIT_MS = 1_800_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--document", type=Path, default=Path("examples/pep-0347.txt"))
    parser.add_argument("--chars", type=int, default=2700)
    parser.add_argument("--min-fidelity", type=int, default=85, help="percent, 50..100")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    asked = parser.parse_args()
    text = asked.document.read_text(encoding="utf-8")[: asked.chars].rpartition("\n\n")[0]
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=asked.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(WAIT_MS)
        page.goto(asked.server)
        _use(page, text, name=asked.document.name, min_fidelity=asked.min_fidelity)
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": WIDTH, "height": height})
        page.screenshot(path=asked.picture)
        browser.close()


def _use(page: Page, text: str, *, name: str, min_fidelity: int) -> None:
    """Compress a text, and ask it."""
    page.get_by_label("Document").fill(text)
    page.get_by_label("Name").fill(name)
    page.get_by_role("slider", name="Minimal fidelity").fill(str(min_fidelity))
    page.get_by_role("button", name="Compress").click()
    page.get_by_label("Question").fill(QUESTION)
    page.keyboard.press("Enter")
    page.locator("#said", has_text="The answers are there.").wait_for(state="attached")


if __name__ == "__main__":
    main()
