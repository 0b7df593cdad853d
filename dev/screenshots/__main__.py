"""python -m dev.screenshots [FOLDER]: take the pictures of the documents anew, in about a minute.

It starts a PostgreSQL, a sandbox, web and worker of its own, and needs Debian's chromium.
"""

import argparse
import secrets
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from dev.benchmarks.stage import BenchError, Stage
from dev.screenshots import chromium, story
from dev.screenshots.pictures import PHONE, Operator, Photographer, Picture
from rdservice.access import operators, passwords
from scripts.local.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from scripts.local.postgres_binaries import BinariesMissingError
from scripts.local.scratch import StopRequested, heed_stop_signals, scratch_folder

ROOT = Path(__file__).resolve().parents[2]
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h

HOUR_S = story.HOUR_S


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.screenshots", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs")
    folder: Path = parser.parse_args().folder
    if not Path(chromium.PROGRAM).exists():
        print(f"{chromium.PROGRAM} is missing: apt-get install chromium", file=sys.stderr)
        return EXIT_UNAVAILABLE
    heed_stop_signals()
    try:
        with (
            scratch_folder("screenshots") as scratch,
            EmbeddedPostgres(scratch / "postgres") as postgres,
            Stage(postgres, "screenshots", scratch / "stage") as stage,
        ):
            _tell(stage, folder)
    except StopRequested as stop:
        return 128 + stop.number
    except (BenchError, EmbeddedPostgresError, BinariesMissingError) as error:
        print(error, file=sys.stderr)
        return EXIT_UNAVAILABLE
    for file in sorted(folder.glob("*/pictures/*.png")):
        print(f"{file} {file.stat().st_size / 1000:.0f} kB")
    return 0


def _tell(stage: Stage, folder: Path) -> None:
    """Bring the service from its first minute to many accounts, and take pictures on the way."""
    operator = Operator(email="maria@example.com", password=secrets.token_urlsafe(16))
    operators.create(stage.conn, operator.email, passwords.hash_password(operator.password))
    web = stage.web(workers=1)
    stage.worker()
    with sync_playwright() as playwright, chromium.launch(playwright) as browser:
        photographer = Photographer(browser, web.url, operator, folder)
        photographer.take(Picture(name="first-login", path="/", size=(1120, 560)))

        story.traffic_of_a_day(stage.conn)
        story.renewals_of_a_month(stage.conn, story.OWN, last_age_s=3 * HOUR_S)
        story.connect(stage, story.OWN, story.OWN_NAME, age_s=3 * HOUR_S)
        photographer.take(
            Picture(name="connected", path="/"),
            Picture(name="charts", path="/", below="#renewals", size=(1120, 890), dark=True),
            Picture(name="phone", path="/", size=PHONE),
        )

        for place, (account_id, name) in enumerate(story.BRANCHES.items()):
            story.connect(stage, account_id, name, age_s=(2 + place) * HOUR_S)
        story.fail(stage.conn, "litoral")
        story.refuse(stage.conn, "esperanca")
        photographer.take(
            Picture(name="accounts", path="/", below="[data-key=accounts]"),
            Picture(name="needs-you", path="/accounts/esperanca"),
        )


if __name__ == "__main__":
    sys.exit(main())
