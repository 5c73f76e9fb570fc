"""Claim: `import ghnq` takes less than 0.3 s and `ghnq --help` less than 1 s. Best of some fresh processes.

python benchmarks/import_time.py [RUNS]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import ghnq": [sys.executable, "-c", "import ghnq"],
    "ghnq --help": [sys.executable, "-m", "ghnq", "--help"],
    "ghnq --version": [sys.executable, "-m", "ghnq", "--version"],
}


def best_of(command: list[str], runs: int) -> float:
    """Returns the least wall time of `runs` processes, in seconds."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    # One process first, so that byte code and file caches are warm for all.
    best_of(COMMANDS["ghnq --help"], 1)
    measured = {name: round(best_of(command, runs), 3) for name, command in COMMANDS.items()}
    print(json.dumps({"best_of": runs, "seconds": measured}, indent=2))


if __name__ == "__main__":
    main()
