"""GHN-2 (`facebookresearch/ppuda`) and GHN-3 (`SamsungSAILMontreal/ghn3`), unmodified, from local copies of their code.

    git clone https://github.com/facebookresearch/ppuda
    git clone https://github.com/SamsungSAILMontreal/ghn3

Both import packages at their first line that building a graph and predicting never calls: torchvision for `isinstance`
checks against its models, matplotlib and h5py for figures and data sets, and so on. Packages that are installed are
used; for an absent one `stand_in` answers every import with empty classes of which nothing is an instance. No line of
theirs is changed and no function of theirs is replaced, so what is timed is their code on torch and networkx alone.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import typer
from torch import Tensor, nn

ABSENT = ("torchvision", "matplotlib", "einops", "h5py", "psutil", "joblib", "tqdm", "transformers")
GHN3_TINY = {
    "max_shape": (64, 64, 16, 16),
    "num_classes": 10,
    "hid": 64,
    "heads": 8,
    "layers": 3,
    "weight_norm": True,
    "ve": True,
    "layernorm": True,
}


class _Empty:
    """Base of the classes of absent packages; `psutil.Process(...)` is made at import."""

    def __init__(self, *args: object, **options: object) -> None:
        pass


class _Absent(ModuleType):
    """A package that is not there: a name in small letters is a module in it, any other name an empty class."""

    __all__: tuple[str, ...] = ()
    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = importlib.import_module(f"{self.__name__}.{name}") if name.islower() else type(name, (_Empty,), {})
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Their warnings and prints are not shown."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Reference:
    """One reference implementation: how it makes a batch of one graph, and a hypernetwork with random weights."""

    name: str
    graphs: ModuleType
    hypernetwork: nn.Module
    dense: bool

    def batch(self, network: nn.Module) -> Any:
        """The graph of a network, virtual edges included, as the hypernetwork takes it."""
        options = {"dense": True} if self.dense else {}
        graph = self.graphs.Graph(network, ve_cutoff=50, **options)
        return self.graphs.GraphBatch([graph], **options).to_device(torch.device("cpu"))

    def predict(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Predicts into the network, as they do, and returns its parameters by name."""
        with torch.no_grad():
            self.hypernetwork(network, batch)
        return {name: parameter.detach() for name, parameter in network.named_parameters()}


def ghn2_config(hidden: int) -> dict[str, Any]:
    """Their CIFAR-10 configuration, published with `hidden` 32."""
    switches = {"hypernet": "gatedgnn", "decoder": "conv", "weight_norm": True, "ve": True, "layernorm": True}
    return {"max_shape": (64, 64, 11, 11), "num_classes": 10, "hid": hidden, **switches}


def load_ghn2(ppuda: Path, config: dict[str, Any]) -> Reference:
    """GHN-2 of a configuration, from the folder that holds the package `ppuda`."""
    with quiet():
        _reach(ppuda, "ppuda")
        hypernetworks = importlib.import_module("ppuda.ghn.nn")
        graphs = importlib.import_module("ppuda.deepnets1m.graph")
        return Reference("GHN-2", graphs, hypernetworks.GHN(**config).eval(), dense=False)


def load_ghn3(ppuda: Path, ghn3: Path) -> Reference:
    """GHN-3-T, the smallest published one, from the folders that hold the packages `ppuda` and `ghn3`."""
    with quiet():
        _reach(ppuda, "ppuda")
        _reach(ghn3, "ghn3")
        hypernetworks = importlib.import_module("ghn3.nn")
        graphs = importlib.import_module("ghn3.graph")
        return Reference("GHN-3-T", graphs, hypernetworks.GHN3(**GHN3_TINY).eval(), dense=True)


def _reach(folder: Path, package: str) -> None:
    if not (folder / package).is_dir():
        raise typer.BadParameter(f"{folder} has no folder {package!r}; give the root of a copy of that repository")
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())  # last, so that what is installed is found first
