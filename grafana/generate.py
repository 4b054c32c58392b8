"""``make dashboards``: writes the dashboards, and Prometheus consoles of the same queries; or says which are stale."""

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
ALL = (loop.dashboard, drift.dashboard, serving.dashboard, pipeline.dashboard)


def files() -> dict[Path, str]:
    """What there should be, by path."""
    boards = [make() for make in ALL]
    return {DASHBOARDS / f"{name(board)}.json": written(board) for board in boards} | {
        CONSOLES / f"{name(board)}.html": consoles.page(board, boards) for board in boards
    }


def name(board: Dashboard) -> str:
    """What a dashboard's files are called."""
    return str(board.uid).removeprefix("driftloop-")


def written(board: Dashboard) -> str:
    """A dashboard as Grafana reads it, one value a line, so that a change can be reviewed."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes; with ``--check`` compares instead, and 1 says that something is stale."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="write nothing; fail where a file is stale")
    check = options.parse_args().check
    wanted = files()
    there = {*DASHBOARDS.glob("*.json"), *CONSOLES.glob("*.html")}
    stale = [path for path in {*wanted, *there} if not path.exists() or wanted.get(path) != path.read_text()]
    if check:
        for path in sorted(stale):
            print(f"{path.relative_to(ROOT)} is stale: run make dashboards")
        return 1 if stale else 0
    for path in stale:
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
