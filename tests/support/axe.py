"""axe-core: the rules of WCAG and of good practice that a program can judge pages by."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_axe = Axe()

COLOUR_RULES = ("color-contrast", "link-in-text-block")
"""The rules of axe's category `cat.color` that count here; its third one, of WCAG's level AAA, is off."""


def expect_accessible(page: Page, where: str, *, rules: tuple[str, ...] = ()) -> None:
    """Fail with axe's report where the page as it stands breaks one of its rules. `where` names page and state.

    `rules`: only these. They suffice where nothing but colours has changed since the page was judged by all.
    """
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = _axe.run(page, options=options)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"
