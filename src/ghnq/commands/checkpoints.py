"""`ghnq checkpoints`: the checkpoints in the package."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ghnq.commands.terminal import Terminal
from ghnq.hypernet import GHN
from ghnq.hypernet.checkpoint import checkpoint_hash, shipped_checkpoints


def checkpoints(*, as_json: bool) -> None:
    """Lists the shipped checkpoints: size, encoder, the images they were trained on, the hash of their weights."""
    with Terminal(as_json=as_json) as terminal:
        rows = [_describe(name) for name in shipped_checkpoints()]
        if not rows:
            terminal.finish({"checkpoints": []}, "No checkpoint comes with this installation.")
            return
        table = Table("name", "data", "images", "encoder", "parameters", "sha256", box=None, header_style="bold")
        for row in rows:
            table.add_row(
                f"[bold]{row['name']}[/]",
                row["data"] or "-",
                "x".join(map(str, row["image_shape"] or ())) or "-",
                row["encoder"],
                f"{row['parameters']:,}",
                row["sha256"][:12],
            )
        terminal.finish({"checkpoints": rows}, table)


def _describe(name: str) -> dict[str, Any]:
    ghn = GHN.from_pretrained(name)
    return {
        "name": name,
        "data": ghn.task.data if ghn.task else None,
        "image_shape": list(ghn.task.image_shape) if ghn.task else None,
        "encoder": ghn.config.encoder,
        "parameters": sum(parameter.numel() for parameter in ghn.parameters()),
        "sha256": checkpoint_hash(name),
        "config": ghn.config.model_dump(mode="json"),
    }
