"""The reference of the commands, from the command table of `ghnq.cli`. The site's build calls `page`.

python docs/make_commands.py prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from ghnq.cli import app

HEAD = """# Commands

`ghnq COMMAND --help` prints what stands here. With `--json`, stdout holds one JSON document and nothing else
([names and units](output.md)); progress and warnings go to stderr. Invalid input is reported in a few lines with exit code 2; Ctrl-C exits with 130, SIGTERM with
143. `ghnq --install-completion` completes commands and options in your shell.

| argument | what it may be |
|---|---|
| `MODEL` | `FILE.py:NAME` or `package.module:NAME`: an `nn.Module`, a class or function that returns one when it is called without arguments, or a model class of `transformers`; `FILE.py:NAME[KEY]`, an item of a list, dictionary or generator; `SPEC.json`, as `ghnq spaces show --json` prints it; or a member of a search space, `SPACE/SPLIT/INDEX`, as in `convnets/test/17` |
| `CHECKPOINT` | a name that `ghnq checkpoints` lists, a directory, or a hub id |
| `DATA` | `digits`, a directory of images or parquet files, or a hub id such as `uoft-cs/cifar10` ([how images are read](images.md)) |
| `SCHEME` | `float32`, `w8a8`, `w4a8`, ..., or a scheme file ([the grammar](schemes.md)) |
| `W` | a file of weights, or the folder of a fine-tuning run |
"""


def page() -> str:
    """Returns the whole page in Markdown."""
    return HEAD + "".join(section(name, command) for name, command in walk(typer.main.get_command(app), "ghnq"))


def walk(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields (path, command) of all commands below `group`, in the order of the table."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def section(path: str, command: Any) -> str:
    """Returns heading, help, usage, and the table of arguments and options."""
    parameters = [p for p in command.params if not getattr(p, "hidden", False)]
    usage = " ".join([path, *(form(p) for p in parameters if p.required or p.param_type_name == "argument")])
    options = " [OPTIONS]" if any(not p.required for p in parameters) else ""
    rows = "".join(row(p) for p in parameters)
    table = f"\n| argument or option | default | meaning |\n|---|---|---|\n{rows}" if rows else ""
    return f'\n## `{path}`\n\n{command.help}\n\n```text title="Usage"\n{usage}{options}\n```\n{table}'


def form(parameter: Any) -> str:
    """Returns how a parameter is written on the command line: `MODEL`, `--out FILE`."""
    value = parameter.metavar or ("" if getattr(parameter, "is_flag", False) else parameter.name.upper())
    if parameter.param_type_name == "argument":
        return str(value)
    return f"{parameter.opts[-1]} {value}".strip()


def row(parameter: Any) -> str:
    names = " or ".join(f"`{name}`" for name in parameter.opts) if parameter.param_type_name == "option" else ""
    value = f" `{parameter.metavar}`" if parameter.metavar else ""
    cells = (f"{names}{value}".strip(), default(parameter), parameter.help or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def default(parameter: Any) -> str:
    """Returns the default as `--help` shows it."""
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    if getattr(parameter, "is_flag", False) or parameter.default is None:
        return ""
    return f"`{parameter.default}`"


if __name__ == "__main__":
    print(page())
