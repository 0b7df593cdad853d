"""The pictures of the READMEs: small files, of the colours that they were taken in."""

import io
from pathlib import Path

import pytest
from PIL import Image

from dev.screenshots.pictures import LANGUAGES, save
from tests.support.documents import ROOT, read

PICTURES = ROOT / "docs" / "screenshots"
LARGEST = 80_000


def test_a_picture_has_a_palette_with_the_colours_of_its_page(tmp_path: Path) -> None:
    page, line = (250, 251, 252), (208, 215, 222)
    taken = Image.new("RGB", (400, 300), page)
    taken.paste(line, (0, 100, 400, 110))
    # More colours than a palette holds, as the edges of letters have them.
    for number in range(1000):
        taken.putpixel((number % 400, 200 + number // 400), (number % 256, number // 4, 90))
    png = io.BytesIO()
    taken.save(png, "PNG")
    save(png.getvalue(), tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as saved:
        assert saved.mode == "P"
        colours = saved.convert("RGB")
    assert (colours.getpixel((5, 5)), colours.getpixel((5, 105))) == (page, line)


@pytest.mark.parametrize(("language", "readme"), [("en", "README.md"), ("pt-BR", "README.pt-BR.md")])
def test_the_readme_of_a_language_shows_each_of_its_pictures_and_they_are_small(
    language: str, readme: str
) -> None:
    assert language in LANGUAGES
    files = sorted(PICTURES.glob(f"*.{language}.png"))
    assert files
    for file in files:
        assert f"](docs/screenshots/{file.name})" in read(readme)
        assert file.stat().st_size <= LARGEST, file.name
