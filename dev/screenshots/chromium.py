"""Debian's Chromium, driven by Playwright."""

from playwright.sync_api import Browser, Playwright

PROGRAM = "/usr/bin/chromium"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def launch(playwright: Playwright) -> Browser:
    """Start the browser headless, without its own requests to other hosts."""
    return playwright.chromium.launch(executable_path=PROGRAM, args=OPTIONS)
