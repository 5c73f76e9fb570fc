"""A graph as a picture: SVG, or a self-contained web page."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from ghnq.errors import GraphError
from ghnq.files import write_text
from ghnq.graph.drawing.svg import svg
from ghnq.graph.ir import ArchGraph

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0; padding: 24px; background: #f5f7fa; font-family: system-ui, sans-serif; }}
main {{ overflow: auto; background: #fff; border-radius: 12px; box-shadow: 0 1px 4px #1f293326; width: fit-content;
  max-width: 100%; margin: 0 auto; }}
svg {{ display: block; }}
.node {{ cursor: default; }}
.node:hover rect {{ stroke: #1f2933; stroke-opacity: 1; stroke-width: 1.6; }}
.edge.near {{ stroke: #1f2933; stroke-width: 2.2; }}
#tip-box {{ position: fixed; display: none; pointer-events: none; white-space: pre-line; max-width: 420px;
  padding: 8px 11px; font-size: 12px; line-height: 1.5; color: #fff; background: #1f2933f0; border-radius: 8px; }}
</style>
</head>
<body>
<main>
{picture}
</main>
<div id="tip-box" role="tooltip"></div>
<script>
const box = document.getElementById("tip-box");
for (const node of document.querySelectorAll(".node")) {{
  const title = node.querySelector("title"), text = title.textContent, id = node.dataset.node;
  title.remove();
  const edges = document.querySelectorAll(`.edge[data-from="${{id}}"], .edge[data-to="${{id}}"]`);
  node.addEventListener("mouseenter", () => {{
    box.textContent = text; box.style.display = "block"; edges.forEach(edge => edge.classList.add("near"));
  }});
  node.addEventListener("mousemove", event => {{
    box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
    box.style.top = Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8) + "px";
  }});
  node.addEventListener("mouseleave", () => {{
    box.style.display = "none"; edges.forEach(edge => edge.classList.remove("near"));
  }});
}}
</script>
</body>
</html>
"""


def draw(graph: ArchGraph, path: str | os.PathLike[str], title: str = "Architecture") -> None:
    """Writes a picture of the graph to a `.svg` or `.html` file, whole or not at all.

    The page shows name, shapes and parameters of the node under the pointer.

    Raises:
        GraphError: The suffix is neither `.svg` nor `.html`.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".svg", ".html"):
        raise GraphError(f"cannot draw {target.name!r}: the suffix must be .svg or .html, got {suffix or 'none'!r}")
    picture = svg(graph, title)
    write_text(target, picture if suffix == ".svg" else _PAGE.format(title=escape(title), picture=picture))
