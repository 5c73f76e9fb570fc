"""Private names of torch are used in `ghnq.torch_compat` only, and its functions do what they document."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import fx, nn

from ghnq import torch_compat

PACKAGE = Path(torch_compat.__file__).parent
ROOTS = {"torch", "nn", "fx", "aten", "F"}
PRIVATE_ATTRIBUTES = {"_parameters", "_buffers", "_modules", "_version", "_schema"}


def private_names(source: str) -> Iterator[str]:
    """Yields the private names of torch in a module: imports, attributes of its modules, of tensors and of modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [part for alias in node.names for part in f"{node.module}.{alias.name}".split(".")]
            yield from (name for name in names if name.startswith("_"))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from (
                    part for part in alias.name.split(".") if alias.name.startswith("torch.") and part[0] == "_"
                )
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if node.attr in PRIVATE_ATTRIBUTES or (isinstance(root, ast.Name) and root.id in ROOTS):
                yield node.attr


def test_no_other_module_uses_private_names() -> None:
    found = {
        str(file.relative_to(PACKAGE)): names
        for file in PACKAGE.rglob("*.py")
        if (names := list(private_names(file.read_text()))) and file.name != "torch_compat.py"
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "from torch.nn.modules.conv import _ConvNd",
        "from torch.utils._pytree import tree_leaves",
        "import torch._inductor.config",
        "torch._foreach_copy_(a, b)",
        "torch.ops.aten._softmax.default",
        "module._parameters['weight']",
    ],
)
def test_private_names_are_found(source: str) -> None:
    assert list(private_names(source))


def test_own_parameters_and_buffers_hold_none_and_not_those_of_children() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Linear(3, 2, bias=False))
    assert torch_compat.own_parameters(module) == {}
    assert torch_compat.own_parameters(module[0]) == {"weight": None, "bias": None}
    assert torch_compat.own_parameters(module[1]).keys() == {"weight", "bias"}
    assert torch_compat.own_buffers(module[0]).keys() == {"running_mean", "running_var", "num_batches_tracked"}
    assert list(torch_compat.own_modules(module).values()) == [module[0], module[1]]


def test_version_counter_counts_changes_in_place() -> None:
    tensor = torch.zeros(3)
    before = torch_compat.version_counter(tensor)
    tensor.add_(1)
    assert torch_compat.version_counter(tensor) == before + 1


def test_lists_of_tensors_are_changed_in_place() -> None:
    targets = [torch.zeros(2), torch.zeros(3)]
    torch_compat.copy_tensors(targets, [torch.ones(2), torch.full((3,), 5.0)])
    assert [target.tolist() for target in targets] == [[1, 1], [5, 5, 5]]
    torch_compat.interpolate_tensors(targets, [torch.full((2,), 3.0), torch.ones(3)], 0.25)
    assert [target.tolist() for target in targets] == [[1.5, 1.5], [4, 4, 4]]


def test_schema_arguments_are_those_of_the_aten_function() -> None:
    graph = fx.Graph()
    node = graph.call_function(torch.ops.aten.clamp.default, (graph.placeholder("x"), 0.0))
    assert [argument.name for argument in torch_compat.schema_arguments(node)] == ["self", "min", "max"]
