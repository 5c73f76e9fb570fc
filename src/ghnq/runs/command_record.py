"""The commands that made a result folder, in `command.json` beside the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ghnq._version import __version__
from ghnq.files import write_text
from ghnq.recorded_names import command_text

FILE = "command.json"


def record_command(folder: Path, words: Sequence[str]) -> None:
    """Adds the command that is running to those that a folder already names; each is kept once.

    Paths that lead out of the working directory are shortened (`ghnq.recorded_names`).

    Args:
        words: `sys.argv`; the first is the program.
    """
    command = command_text(["ghnq", *words[1:]])
    earlier = [each for each in recorded_commands(folder) if each != command]
    write_text(folder / FILE, json.dumps({"commands": [*earlier, command], "ghnq": __version__}, indent=2) + "\n")


def recorded_commands(folder: Path) -> list[str]:
    """Returns the commands that made a folder, the last one last; none where they were not recorded or are damaged."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    commands = document.get("commands") if isinstance(document, dict) else None
    return [each for each in commands if isinstance(each, str)] if isinstance(commands, list) else []
