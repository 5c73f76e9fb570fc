"""`ghnq train`: one run of one recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from ghnq.commands.options import check_folder
from ghnq.commands.terminal import Terminal
from ghnq.data.read_options import current
from ghnq.errors import RecipeError
from ghnq.runs.command_record import record_command
from ghnq.runs.distributed.topology import launched_rank
from ghnq.training import Interrupted, load_recipe
from ghnq.training import train as train_recipe


def train(
    recipe: str,
    *,
    data: str | None,
    out: Path | None,
    resume: bool,
    override: bool,
    max_minutes: float | None,
    devices: int | None,
    overrides: list[str],
) -> None:
    """Trains as `recipe` says, changed by `overrides` (KEY=VALUE), into `out`; signal n gives exit code 128 + n."""
    if max_minutes is not None and max_minutes <= 0:
        raise RecipeError(f"--max-minutes {max_minutes:g} leaves no time to train; give a positive number of minutes.")
    loaded = load_recipe(recipe, overrides)
    folder = out or Path("runs") / Path(recipe).stem
    check_folder(folder)
    with Terminal(as_json=False) as terminal:
        try:
            checkpoint = train_recipe(
                loaded, data=data, out=folder, resume=resume, override=override, max_minutes=max_minutes,
                devices=devices, console=terminal.progress,
            )  # fmt: skip
        except Interrupted as stop:
            record_command(folder, sys.argv)
            command = _resume_command(recipe, folder, data, devices, overrides)
            terminal.progress.print(f"Interrupted; the run is saved. Go on with: {command}", soft_wrap=True)
            raise SystemExit(128 + stop.signal) from stop
        if launched_rank() == 0:
            record_command(folder, sys.argv)
            terminal.finish(
                None,
                f"checkpoint: [cyan]{checkpoint}[/]",
                f"curves: ghnq report {folder} -o report.html",
                f"measure it with: ghnq evaluate {checkpoint}"
                + (f" --data {data}" if data else "")
                + " --limit 20 --images 500",
            )


def _resume_command(recipe: str, folder: Path, data: str | None, devices: int | None, overrides: list[str]) -> str:
    """Returns the command that resumes the run; the minutes that are left are in the saved state."""
    arguments = ["ghnq", "train", recipe, "--out", str(folder), "--resume"]
    arguments += ["--data", data] if data else []
    arguments += ["--devices", str(devices)] if devices else []
    arguments += current().words()
    arguments += [argument for override in overrides for argument in ("--set", override)]
    return shlex.join(arguments)
