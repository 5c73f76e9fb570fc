"""Weights in a safetensors file, as a source of parameters: what `ghnq predict` and `ghnq finetune` write.

The file has the names of `module.state_dict()`, so that `load_state_dict(strict=True)` loads it; its header says where
the weights come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ghnq.data import ImageDataset, ReadOptions, RecordedImages
from ghnq.errors import CheckpointError, DataError, nearest
from ghnq.files import atomic_path
from ghnq.graph import ArchGraph
from ghnq.hypernet.initialize import with_parameters
from ghnq.quant import QuantScheme

WEIGHTS = "weights.safetensors"
"""Name of the file in the folder of a fine-tuning run."""


_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def about_images(dataset: ImageDataset) -> dict[str, str]:
    """Returns what the header says about the images: `ImageDataset.record` as text."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in dataset.record().items()}


def weights_file(path: Path) -> Path:
    """Returns the file of weights that a path names: itself, or the result in the folder of a fine-tuning run."""
    return path / WEIGHTS if path.is_dir() else path


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """Parameters and buffers of a network; running statistics of norms are kept as they are.

    Attributes:
        tensors: By the names of the module's state dict.
        metadata: The header of the file.
        name: The file, for messages.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    name: str = "the weights"
    depends_on_scheme: bool = False

    @classmethod
    def of(cls, network: nn.Module, module: nn.Module, metadata: Mapping[str, str]) -> StoredWeights:
        """Returns the weights of a trained copy of a module, without what was added to the copy."""
        trained = network.state_dict()
        tensors = {name: trained[name].detach().cpu().contiguous().clone() for name in module.state_dict()}
        return cls(tensors, metadata)

    @classmethod
    def read(cls, path: Path) -> StoredWeights:
        """Reads a file, or the result in the folder of a fine-tuning run.

        Raises:
            CheckpointError: There is none, or it is not a safetensors file.
        """
        file = weights_file(path)
        if file.is_file() and file.suffix in _PICKLES:
            raise CheckpointError(
                f"'{path}' is a pickle, which may run code when it is read; write the weights as safetensors where "
                "they come from: safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')"
            )
        if not file.is_file():
            beside = path.parent
            others = [other.name for other in beside.glob("*.safetensors")] if beside.is_dir() else []
            others += [run.parent.name for run in beside.glob(f"*/{WEIGHTS}")] if beside.is_dir() else []
            raise CheckpointError(
                f"there are no weights at '{path}'{nearest(path.name, others)}; give a .safetensors file, or the "
                "folder of a finished `ghnq finetune`"
            )
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = dict(opened.metadata() or {})
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"'{file}' is truncated or not a safetensors file ({error})") from error
        return cls(tensors, metadata, f"'{path}'")

    @property
    def standardise(self) -> bool:
        """Whether the weights are predicted ones, as they were predicted."""
        return self.metadata.get("standardise") == "true"

    @property
    def keep_statistics(self) -> bool:
        """Whether the norms have running statistics of images, not those of a fresh module."""
        return self.metadata.get("calibrated") != "false"

    @property
    def trained_through(self) -> str | None:
        """The scheme that `ghnq finetune` trained the weights through; None for other weights."""
        return self.metadata.get("trained_through")

    @property
    def images(self) -> RecordedImages:
        """What the header says about the images that the weights were made with.

        Raises:
            CheckpointError: It says something that nobody can have written.
        """
        about = self.metadata
        try:
            options = ReadOptions.from_record(json.loads(about.get("read_options", "{}")))
        except (ValueError, AttributeError, RecursionError, DataError) as error:
            raise CheckpointError(f"{self.name} has a damaged header: read_options: {error}") from error
        return RecordedImages(self.name, about.get("data"), about.get("data_sha256"), options)

    def check_dataset(self, dataset: ImageDataset) -> None:
        """Checks that the weights are for images of this shape in as many classes.

        Raises:
            DataError: They are not.
        """
        shape = self.metadata.get("input_shape")
        if shape is not None and shape != ",".join(map(str, dataset.input_shape)):
            given = "x".join(map(str, dataset.input_shape))
            raise DataError(
                f"{self.name} is for images of {shape.replace(',', 'x')} ('{self.metadata.get('data', 'unknown')}'), "
                f"but those of '{dataset.name}' are {given}; name other images (--data, --image-size), or other weights"
            )
        classes = self.metadata.get("num_classes")
        if classes is not None and int(classes) != dataset.num_classes:
            raise DataError(
                f"{self.name} is for {classes} classes ('{self.metadata.get('data', 'unknown')}'), but "
                f"'{dataset.name}' has {dataset.num_classes}; name other images (--data), or other weights"
            )

    @torch.no_grad()
    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        """Returns a copy of the module with these tensors.

        Raises:
            CheckpointError: A name is missing or unknown, or a shape differs.
        """
        self.check_module(module)
        tensors = self._under_all_names(module)
        parameters = {name: tensors[name].clone() for name, _ in module.named_parameters()}
        network = with_parameters(module, parameters)
        network.load_state_dict(tensors)
        return network

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all; a parameter that is shared is written under each of its names."""
        with atomic_path(path) as temporary:
            save_file({name: tensor.clone() for name, tensor in self.tensors.items()}, temporary, dict(self.metadata))

    def check_module(self, module: nn.Module) -> None:
        """Checks that the tensors are those of a module.

        Raises:
            CheckpointError: A name is missing or unknown, or a shape differs.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        tensors = self._under_all_names(module)
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name, shape in expected.items():
            if name not in given:
                raise CheckpointError(
                    f"{self.name} has no '{name}'{nearest(name, given)}, which the model has: they are weights of "
                    "another model"
                )
            if given[name] != shape:
                raise CheckpointError(
                    f"'{name}' has shape {given[name]} in {self.name}, and {shape} in the model: they are weights of "
                    "another model, or for another number of classes"
                )
        for name in given:
            if name not in expected:
                raise CheckpointError(
                    f"{self.name} has '{name}', which the model does not have{nearest(name, expected)}: they are "
                    "weights of another model"
                )
        for names in _tied_names(module):
            for name in names[1:]:
                if not torch.equal(tensors[name], tensors[names[0]]):
                    raise CheckpointError(
                        f"'{names[0]}' and '{name}' are one tensor of the model, but differ in {self.name}: they are "
                        "weights of a model that does not share them"
                    )

    def _under_all_names(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the tensors, those that the module shares under each of its names, also where the file has one."""
        tensors = dict(self.tensors)
        for names in _tied_names(module):
            known = [name for name in names if name in tensors]
            tensors |= {name: tensors[known[0]] for name in names if known and name not in tensors}
        return tensors


def _tied_names(module: nn.Module) -> list[list[str]]:
    """Returns the names of each parameter or buffer that a module has under several."""
    found: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), []).append(name)
    return [names for names in found.values() if len(names) > 1]
