"""The pages for maintainers name modules and folders that exist."""

import re

import pytest

from tests.support.documents import LANGUAGES, ROOT, read

PLACES = ("", "rdservice/", "docs/en/")
"""Where a path of these pages may begin: the repository, or the package that they describe."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_path_that_the_pages_for_maintainers_name_exists(language: str) -> None:
    pages = sorted((ROOT / "docs" / language / "develop").rglob("*.md"))
    named = {
        path
        for page in pages
        for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", read(page))
        if path != "site/"
    }
    assert len(named) > 40
    missing = [path for path in sorted(named) if not any((ROOT / place / path).exists() for place in PLACES)]
    assert missing == []
