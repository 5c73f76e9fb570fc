"""Predict quantization-robust weights for convolutional networks nobody has trained yet.

The public names are listed here and nowhere else. Each is imported when it is first used, so that `import ghnq` loads
neither torch nor any other large library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ghnq._version import __version__ as __version__
from ghnq.errors import CheckpointError as CheckpointError
from ghnq.errors import DataError as DataError
from ghnq.errors import ExportError as ExportError
from ghnq.errors import GhnqError as GhnqError
from ghnq.errors import GraphError as GraphError
from ghnq.errors import MissingExtraError as MissingExtraError
from ghnq.errors import NotFiniteError as NotFiniteError
from ghnq.errors import RecipeError as RecipeError
from ghnq.errors import SchemeError as SchemeError
from ghnq.errors import SpaceError as SpaceError
from ghnq.errors import TrainingError as TrainingError
from ghnq.errors import WriteError as WriteError

if TYPE_CHECKING:
    from ghnq import analysis as analysis
    from ghnq import data as data
    from ghnq import deploy as deploy
    from ghnq import evaluation as evaluation
    from ghnq import graph as graph
    from ghnq import hypernet as hypernet
    from ghnq import quant as quant
    from ghnq import spaces as spaces
    from ghnq import training as training
    from ghnq.analysis.score import score as score
    from ghnq.data import load as load_dataset
    from ghnq.deploy import export_onnx as export_onnx
    from ghnq.deploy import export_program as export_program
    from ghnq.evaluation import evaluate as evaluate
    from ghnq.finetune.transfer import transfer as transfer
    from ghnq.graph import ArchGraph as ArchGraph
    from ghnq.graph import trace as trace
    from ghnq.hypernet import GHN as GHN
    from ghnq.hypernet.initialize import initialize as initialize
    from ghnq.quant import QuantScheme as QuantScheme
    from ghnq.quant import quantize as quantize
    from ghnq.training import load_recipe as load_recipe
    from ghnq.training import train as train

__all__ = [
    "GHN",
    "ArchGraph",
    "CheckpointError",
    "DataError",
    "ExportError",
    "GhnqError",
    "GraphError",
    "MissingExtraError",
    "NotFiniteError",
    "QuantScheme",
    "RecipeError",
    "SchemeError",
    "SpaceError",
    "TrainingError",
    "WriteError",
    "__version__",
    "analysis",
    "data",
    "deploy",
    "evaluate",
    "evaluation",
    "export_onnx",
    "export_program",
    "graph",
    "hypernet",
    "initialize",
    "load_dataset",
    "load_recipe",
    "quant",
    "quantize",
    "score",
    "spaces",
    "trace",
    "train",
    "training",
    "transfer",
]

# Public name -> the module it lives in and its name there (no name: the module itself).
_LAZY = {
    "GHN": ("ghnq.hypernet", "GHN"),
    "ArchGraph": ("ghnq.graph", "ArchGraph"),
    "QuantScheme": ("ghnq.quant", "QuantScheme"),
    "analysis": ("ghnq.analysis", ""),
    "data": ("ghnq.data", ""),
    "deploy": ("ghnq.deploy", ""),
    "evaluate": ("ghnq.evaluation", "evaluate"),
    "evaluation": ("ghnq.evaluation", ""),
    "export_onnx": ("ghnq.deploy", "export_onnx"),
    "export_program": ("ghnq.deploy", "export_program"),
    "graph": ("ghnq.graph", ""),
    "hypernet": ("ghnq.hypernet", ""),
    "initialize": ("ghnq.hypernet.initialize", "initialize"),
    "load_dataset": ("ghnq.data", "load"),
    "load_recipe": ("ghnq.training", "load_recipe"),
    "quant": ("ghnq.quant", ""),
    "quantize": ("ghnq.quant", "quantize"),
    "score": ("ghnq.analysis.score", "score"),
    "spaces": ("ghnq.spaces", ""),
    "trace": ("ghnq.graph", "trace"),
    "train": ("ghnq.training", "train"),
    "training": ("ghnq.training", ""),
    "transfer": ("ghnq.finetune.transfer", "transfer"),
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'ghnq' has no attribute {name!r}; it offers: {', '.join(__all__)}")
    module, attribute = _LAZY[name]
    value: object = import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value  # The next use finds it without coming here.
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
