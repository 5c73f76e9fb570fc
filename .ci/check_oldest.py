"""Lists the installed libraries that ghnq asks for (not `docs`), and fails where one is not the oldest allowed."""

from __future__ import annotations

from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.version import Version


def is_oldest(requirement: Requirement, installed: Version) -> bool:
    """Whether a version is the one behind `>=`; of torch, whose third number Debian chose, the first two numbers."""
    oldest = next(Version(part.version) for part in requirement.specifier if part.operator == ">=")
    return installed.release[:2] == oldest.release[:2] if requirement.name == "torch" else installed == oldest


wrong = []
for text in sorted({line.split(";")[0] for line in requires("ghnq") or [] if "extra == 'docs'" not in line}):
    requirement = Requirement(text)
    found = Version(version(requirement.name))
    print(f"{requirement.name} {found}")
    if not is_oldest(requirement, found):
        wrong.append(f"{text}: {found} is the oldest that can be installed")
if wrong:
    raise SystemExit("bounds in pyproject.toml that no environment has; raise them:\n" + "\n".join(wrong))
