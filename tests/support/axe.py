"""axe-core: the rules of WCAG and of good practice that a program can judge pages by."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_axe = Axe()


def expect_accessible(page: Page, where: str) -> None:
    """Fail with axe's report where the page as it stands breaks one of its rules. `where` names page and state."""
    found = _axe.run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"
