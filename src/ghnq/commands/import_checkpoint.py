"""`ghnq import`: a published checkpoint, written in our format."""

from __future__ import annotations

from pathlib import Path

from ghnq.commands.options import check_folder
from ghnq.commands.terminal import Terminal
from ghnq.errors import CheckpointError
from ghnq.hypernet.checkpoint import CONFIG, WEIGHTS, checkpoint_hash
from ghnq.hypernet.published_file import read_published


def import_checkpoint(file: str, *, out: Path, as_json: bool) -> None:
    """Reads the hypernetwork published in `file` and writes it as a checkpoint into `out`, which must not hold one."""
    check_folder(out)
    if (out / WEIGHTS).exists() or (out / CONFIG).exists():
        raise CheckpointError(f"'{out}' already holds a checkpoint; name another --out, or remove that one first")
    with Terminal(as_json=as_json) as terminal:
        ghn = read_published(Path(file))
        ghn.save_pretrained(out)
        count = sum(parameter.numel() for parameter in ghn.parameters())
        document = {
            "file": file,
            "out": str(out),
            "encoder": ghn.config.encoder,
            "num_classes": ghn.config.num_classes,
            "parameters": count,
            "sha256": checkpoint_hash(out),
            "config": ghn.config.model_dump(mode="json"),
        }
    terminal.finish(
        document,
        f"[bold]{count:,}[/] parameters, encoder {ghn.config.encoder}, for {ghn.config.num_classes} classes",
        f"checkpoint: [cyan]{out}[/]",
        f"measure it with: ghnq evaluate {out} --data DATA",
        f"train it further with: ghnq train RECIPE --set init={out}",
    )
