"""`ghnq --install-completion`, in a bash of its own with a home folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What bash does when the user presses Tab behind the last of the words.
PRESS_TAB = """
source ~/.bashrc
COMP_WORDS=({words}); COMP_CWORD={last}
$(complete -p ghnq | sed 's/.*-F \\([^ ]*\\).*/\\1/') ghnq
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_installed_completion_completes_commands_and_options(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "ghnq"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ghnq "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "--norc", "-c", f"{script}\ntrue"], env=environment, text=True, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def complete(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        return bash(PRESS_TAB.format(words=quoted, last=len(words) - 1)).split()

    assert "bash completion installed" in bash("ghnq --install-completion")
    assert complete("ghnq", "e") == ["evaluate", "export"]
    assert complete("ghnq", "spaces", "") == ["describe", "show"]
    assert complete("ghnq", "evaluate", "--s") == ["--splits", "--schemes", "--steps", "--skip-unreadable"]
