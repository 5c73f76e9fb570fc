"""Networks that are trained through quantization, and what becomes of them: the simulated network that is exported.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning
from ghnq.quant.calibration import estimate_in_place, norms_with_statistics
from ghnq.quant.folding import fold_gain, fold_pairs
from ghnq.quant.pipeline import Prepared, prepare
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.standardisation import NAME, check_norms, detach_norm, pairs_of, unmark_predicted
from ghnq.quant.trainable_layers import TrainableLayer, make_float, make_trainable
from ghnq.torch_compat import own_parameters


class TrainableNetwork(nn.Module):
    """A network whose quantized layers keep float weights, which are quantized in every forward pass.

    It is trained like any other network: `parameters()` are the float weights, `train()` and `eval()` work as usual.
    Weights and activations are quantized in both modes, activations with the range of the batch. `deploy` measures the
    ranges on calibration images and fixes them.

    Attributes:
        network: The network itself. Its state dict has the names of the module that it was made from.
        scheme: The scheme that it is trained for.
        images: The calibration images [B, C, H, W] that it was made with.
        batch_size: Images that run at once in `deploy`.
    """

    def __init__(self, network: nn.Module, scheme: QuantScheme, images: Tensor, batch_size: int) -> None:
        super().__init__()
        self.network, self.scheme, self.images, self.batch_size = network, scheme, images, batch_size

    @classmethod
    def of(cls, prepared: Prepared, scheme: QuantScheme) -> Self:
        """Returns the trainable network of a prepared one, in train mode; the prepared one is not changed.

        Where convolutions are standardised, their weights (and biases, of those that have one) are scaled and shifted
        once, here: from then on they are ordinary weights. Convolutions that share their weight with another layer are
        not standardised, as one weight cannot have the scales of two.

        Warns:
            GhnqWarning: There are such convolutions.

        Raises:
            SchemeError: The scheme cannot be applied to this network.
        """
        layers, searched = prepared.layers(scheme), scheme.with_searched_ranges
        if tied := standardised_but_tied(prepared):
            prepared = _without_standardised(prepared, tied)
        network = copy.deepcopy(prepared.network)
        _absorb_standardisation(network, prepared.data_flow.unnormalised)
        unmark_predicted(network)
        norms = dict(prepared.data_flow.norm_pairs) if scheme.fold else {}
        for name, bits in layers.items():
            norm = norms.get(name)
            own = None if norm is None or norm == f"{name}.{NAME}" else network.get_submodule(norm)
            make_trainable(network.get_submodule(name), bits, searched, own)
        return cls(network, scheme, prepared.images, prepared.batch_size).train()

    def forward(self, *args: object, **kwargs: object) -> object:
        """Runs the network with quantized weights and activations."""
        return self.network(*args, **kwargs)

    def float_network(self) -> nn.Module:
        """Returns a copy of the network in eval mode with the float weights as they are now, and no quantization."""
        network = copy.deepcopy(self.network).eval()
        for layer in network.modules():
            if isinstance(layer, TrainableLayer):
                make_float(layer)
        return network

    def deploy(self, calibration: Tensor | None = None, *, reestimate: bool = False) -> nn.Module:
        """Returns the simulated quantized network, which is what is exported.

        Norms keep the running statistics of training, which are those of the quantized network and of the images that
        the loop trained on, augmented or not: the result classifies as this network does in eval mode, apart from the
        ranges of activations, which are fixed. It is what `ghnq finetune` measures and `ghnq export` writes.

        Args:
            calibration: Normalised float images [B, C, H, W] for activation ranges, and for statistics with
                `reestimate`; None takes those that the network was made with.
            reestimate: Whether to replace the running statistics by those of the calibration images. The result is
                then, bit for bit, what `ghnq.quantize` returns for `float_network()`. That is right for a network that
                has made no step in train mode yet: its statistics are still those of the float network.

        Raises:
            NotFiniteError: A weight or an activation is NaN or infinite.
            DataError: The calibration images cannot be used.
        """
        return self.prepared(calibration, reestimate=reestimate).quantize(self.scheme)

    def prepared(self, calibration: Tensor | None = None, *, reestimate: bool = False) -> Prepared:
        """Returns the trained network before quantization; arguments and errors are those of `deploy`."""
        return prepare(
            self.float_network(),
            self.images if calibration is None else calibration,
            batch_size=self.batch_size,
            standardise=False,
            keep_statistics=not reestimate,
            trained_through=None if reestimate else str(self.scheme),
        )


def standardised_but_tied(prepared: Prepared) -> list[str]:
    """Returns the layers that are standardised and share their weight with another layer."""
    network = prepared.network
    users = Counter(id(parameter) for child in network.modules() for parameter in own_parameters(child).values())
    layers = {name: network.get_submodule(name) for name in prepared.data_flow.unnormalised}
    return [name for name, layer in layers.items() if hasattr(layer, NAME) and users[id(layer.weight)] > 1]


@torch.no_grad()
def _without_standardised(prepared: Prepared, names: list[str]) -> Prepared:
    """Returns a prepared network without the norms that standardise these layers, calibrated again."""
    listed = ", ".join(f"'{name}'" for name in names)
    warnings.warn(
        f"layers that share their weight with another layer are not standardised: {listed}", GhnqWarning, stacklevel=4
    )
    network, data_flow, gone = copy.deepcopy(prepared.network), prepared.data_flow, pairs_of(names)
    for name in names:
        detach_norm(network.get_submodule(name))
    left = tuple(name for name in data_flow.unnormalised if name not in names)
    norm_pairs = tuple(pair for pair in data_flow.norm_pairs if pair not in gone)
    standardising = {network.get_submodule(norm) for _, norm in pairs_of(left)}
    keep = norms_with_statistics(network) - standardising if prepared.keep_statistics else set()
    estimate_in_place(
        network, prepared.images, prepared.batch_size, keep=keep, keep_buffers=prepared.keep_statistics
    )  # fmt: skip
    check_norms(network)
    return replace(
        prepared, network=network, data_flow=replace(data_flow, unnormalised=left, norm_pairs=norm_pairs)
    )  # fmt: skip


@torch.no_grad()
def _absorb_standardisation(network: nn.Module, names: tuple[str, ...]) -> None:
    """Folds the norms that standardise convolutions into them, in place, as far as parameters of the network allow."""
    for name in names:
        layer = network.get_submodule(name)
        norm = dict(layer.named_children()).get(NAME)
        if norm is None:
            continue
        if isinstance(layer.bias, Tensor):
            fold_pairs(network, pairs_of([name]))
        else:  # no parameter takes the shift; a new one would not be the module's
            gain_O = fold_gain(norm, name)
            assert isinstance(layer.weight, Tensor)
            layer.weight.mul_(gain_O.view(-1, *[1] * (layer.weight.dim() - 1)))
            detach_norm(layer)
