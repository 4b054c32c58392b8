"""``make dashboards``: write the dashboards, and Prometheus consoles of the same queries, or report which are stale."""

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import consoles, drift, loop, pipeline, serving

ROOT = Path(__file__).parent.parent
DASHBOARDS = ROOT / "grafana" / "dashboards"
CONSOLES = ROOT / "compose" / "prometheus" / "consoles"
DASHBOARD_BUILDERS = (loop.dashboard, drift.dashboard, serving.dashboard, pipeline.dashboard)


def render_files() -> dict[Path, str]:
    """Return the content of each generated file, by path."""
    boards = [build() for build in DASHBOARD_BUILDERS]
    return {DASHBOARDS / f"{file_stem(board)}.json": to_json(board) for board in boards} | {
        CONSOLES / f"{file_stem(board)}.html": consoles.render_console(board, boards) for board in boards
    }


def file_stem(board: Dashboard) -> str:
    """Return the name of a dashboard's files, without the extension."""
    return str(board.uid).removeprefix("driftloop-")


def to_json(board: Dashboard) -> str:
    """Return a dashboard in Grafana's format, one value a line so that changes can be reviewed."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files; with ``--check`` compare only, and return 1 if one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    check = parser.parse_args().check
    expected = render_files()
    existing = {*DASHBOARDS.glob("*.json"), *CONSOLES.glob("*.html")}
    stale = [path for path in {*expected, *existing} if not path.exists() or expected.get(path) != path.read_text()]
    if check:
        for path in sorted(stale):
            print(f"{path.relative_to(ROOT)} is stale: run make dashboards")
        return 1 if stale else 0
    for path in stale:
        if path in expected:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(expected[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
