"""Prints a report as PDF through a browser that is on this machine: Chromium, Chrome or Edge.

A browser lays out a page and its SVG as people see it; the light install brings none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.errors import SetupError

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "chromium-headless-shell",
)
_PLACES = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
_PLAYWRIGHT = (".cache/ms-playwright", "Library/Caches/ms-playwright")
_PATIENCE_SECONDS = 120


def find_browser() -> Path | None:
    """A browser that prints without a window: one on PATH, else one that Playwright installed."""
    for name in (*BROWSERS, *_PLACES):
        if found := shutil.which(name):
            return Path(found)
    for folder in _PLAYWRIGHT:
        found_there = sorted((Path.home() / folder).glob("chromium-*/chrome-*/chrome"))
        if found_there:
            return found_there[-1]
    return None


def pdf_of(html: str, browser: Path | None = None) -> bytes:
    """The page as PDF, in the paper size that its print style sheet states.

    The browser gets a profile of its own that is thrown away, and a page that may load nothing.
    Raises SetupError when there is no browser, or it does not print.
    """
    browser = browser or find_browser()
    if browser is None:
        raise SetupError(
            "a PDF needs a browser, and there is none: install Chromium (`apt-get install "
            "chromium`, or any Chrome), give one with --browser, or open the HTML file in the "
            "browser that you have and print it"
        )
    with tempfile.TemporaryDirectory(prefix="platemark-print-") as private:
        page, pdf = Path(private) / "report.html", Path(private) / "report.pdf"
        page.write_bytes(html.encode("utf-8", "replace"))
        command = [
            str(browser),
            "--headless",
            "--disable-gpu",
            "--disable-extensions",
            "--no-first-run",
            f"--user-data-dir={private}/profile",
            "--no-pdf-header-footer",
            f"--print-to-pdf={pdf}",
            page.as_uri(),
        ]
        # Chromium's own sandbox refuses to work for root, as in containers.
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupError(f"{browser} did not print the report: {error}") from error
        printed = pdf.read_bytes() if pdf.is_file() else b""
        if not printed.startswith(b"%PDF-"):
            last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise SetupError(f"{browser} printed no PDF (exit code {done.returncode}): {last}")
        return printed
