"""Make the Grafana dashboard from dev/dashboards/rows and the alert rules.

python -m dev.dashboards           write monitoring/grafana/rdservice.json
python -m dev.dashboards --check   change nothing; fail where the file is out of date
"""

import argparse
import sys
from pathlib import Path

from dev.dashboards.build import render

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "monitoring" / "grafana" / "rdservice.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dev.dashboards", description="Make or check the Grafana dashboard."
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail where it is out of date")
    arguments = parser.parse_args()
    text = render()
    name = DASHBOARD.relative_to(ROOT)
    if not arguments.check:
        DASHBOARD.write_text(text)
        return 0
    if not DASHBOARD.exists() or DASHBOARD.read_text() != text:
        print(f"{name} is out of date: run `python -m dev.dashboards`", file=sys.stderr)
        return 1
    print(f"{name} follows from the panels and the alert rules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
