"""From a float network to its simulated quantized network, step by step.

prepare:   copy -> look at the flow -> batch-norm statistics from the calibration images       (once per network)
quantize:  [equalize] -> re-estimate the statistics through the quantized network -> fold -> quantize weights
           -> fix activation ranges -> [correct biases]

The steps in brackets, and other ways to choose scales and to round, are carried out where the scheme names them
(`QuantScheme.steps`).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ghnq.errors import DataError, SchemeError
from ghnq.quant.bias_correction import correct_in_place
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.calibration import check_images, estimate_in_place, fix_activation_ranges
from ghnq.quant.data_flow import DataFlow, observe_data_flow
from ghnq.quant.equalization import equalized
from ghnq.quant.folding import fold_gain, fold_pairs, replace_module
from ghnq.quant.quantized_layers import check_finite, quantize_layer
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.standardisation import attach_norms, check_norms, has_predicted_weights, pairs_of
from ghnq.torch_compat import BatchNorm


def quantize(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    protocol: str = "deploy",
    steps: Sequence[str] | None = None,
    batch_size: int = 256,
    standardise: bool | None = None,
) -> nn.Module:
    """Returns a new network that computes in float arithmetic what the quantized one computes; the module is untouched.

    Args:
        scheme: `w4a8` and the like, a scheme file, or a QuantScheme. `float32` estimates the batch-norm statistics and
            folds, no more.
        calibration: normalised float images [B, C, H, W] of the training split.
        protocol: `deploy` or `paper`; how a scheme given as a word is quantized.
        standardise: bring the outputs of convolutions that meet no norm to mean 0 and variance 1 on the images
            (ghnq.quant.standardisation). None: where the weights are as `ghnq.initialize` has predicted them.
        steps: post-training steps (names of `ghnq.quant.POST_TRAINING_STEPS`) besides; None leaves those of the scheme.

    Raises:
        SchemeError: unknown scheme, protocol or step, nothing to quantize, a layer that is not finite or not supported.
        DataError: unusable calibration images.
    """
    changes = {} if steps is None else {"steps": tuple(steps)}
    scheme = QuantScheme.parse(scheme, protocol=protocol, **changes)
    return prepare(module, calibration, batch_size=batch_size, standardise=standardise).quantize(scheme)


@torch.no_grad()
def prepare(
    module: nn.Module, calibration: Tensor, *, batch_size: int = 256, standardise: bool | None = None
) -> "Prepared":
    """Does once what all schemes share: a copy in eval mode, its flow, and float batch-norm statistics from the images.

    standardise: bring the outputs of convolutions that meet no norm to mean 0 and variance 1 on the images, as networks
        with predicted weights need it (ghnq.quant.standardisation); None: where the weights are as
        `ghnq.initialize` has predicted them, and were not changed since.

    Raises:
        SchemeError: a parameter is NaN or infinite, or the module is on the meta device.
        DataError: unusable calibration images, or images the network cannot run.
    """
    if any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()]):
        raise SchemeError("the module is on the meta device and has no weights: put parameters into it first")
    network = copy.deepcopy(module).eval()
    images = check_images(network, calibration)
    for name, child in network.named_modules():
        if isinstance(child, nn.SyncBatchNorm):
            raise SchemeError(
                f"{name!r} is a SyncBatchNorm: convert the network to plain batch norm before quantizing it"
            )
        check_finite(name, child)
    data_flow = _observed(network, images)
    if has_predicted_weights(module) if standardise is None else standardise:
        attach_norms(network, data_flow.unnormalised)
        data_flow = replace(data_flow, norm_pairs=data_flow.norm_pairs + pairs_of(data_flow.unnormalised))
    estimate_in_place(network, images, batch_size)
    check_norms(network)
    return Prepared(network=network, images=images, batch_size=batch_size, data_flow=data_flow)


def _observed(network: nn.Module, images: Tensor) -> DataFlow:
    """The flow of 2 images, after a run of 3 where there are as many: a network may be written for one number."""
    count = min(3, len(images))
    try:
        network(images[:count])
        count = 2
        return observe_data_flow(network, images[:count])
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:  # torch's, and the network's own checks
        raise DataError(
            f"the network cannot run {count} of the calibration images of shape {tuple(images.shape)}: "
            f"{str(error) or type(error).__name__}; it must take images of this size in any number"
        ) from error


HOLD = 0.25
"""Fraction of its float variance below which no re-estimated norm variance falls."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network with float batch-norm statistics, ready to be quantized to any number of schemes."""

    network: nn.Module
    images: Tensor
    batch_size: int
    data_flow: DataFlow

    @torch.no_grad()
    def quantize(self, scheme: QuantScheme | str, *, protocol: str = "deploy") -> nn.Module:
        """Returns the simulated network of one scheme, as `ghnq.quant.quantize` does.

        Raises:
            SchemeError: as for `ghnq.quant.quantize`.
        """
        scheme = QuantScheme.parse(scheme, protocol=protocol).with_searched_ranges
        layers = self.layers(scheme)
        if layers:  # a float network may overflow and be counted as it is; a quantized one would hide it behind a clamp
            for name, child in self.network.named_modules():
                check_finite(name, child, buffers=True)
        network = copy.deepcopy(self.network)
        self._floor_variances(network, scheme)
        if layers and "equalize" in scheme.steps:
            network = equalized(network, self.images, self.data_flow)
        in_float = copy.deepcopy(network) if layers and "correct_bias" in scheme.steps else None
        if layers and scheme.reestimate:
            self._reestimate(network, layers, scheme)
            self._floor_variances(network, scheme)
        if scheme.fold:
            fold_pairs(network, self.data_flow.norm_pairs)
        _quantize_layers(network, layers, scheme)
        fix_activation_ranges(network, self.images, self.batch_size)
        if in_float is not None:
            if scheme.fold:
                fold_pairs(in_float, self.data_flow.norm_pairs)
            correct_in_place(network, in_float, self.images, self.batch_size)
        return network

    def layers(self, scheme: QuantScheme) -> dict[str, LayerBits]:
        """The layers that the scheme quantizes, by module name, with their bits; layers that never run stay out.

        Raises:
            SchemeError: an override matches no layer, nothing to quantize, or weights are used in other places.
        """
        running = [name for name, calls in self.data_flow.layer_runs.items() if calls]
        scheme.check_overrides(running)
        if scheme.is_float:
            return {}
        if self.data_flow.unquantizable:
            calls = ", ".join(self.data_flow.unquantizable)
            raise SchemeError(
                f"scheme {scheme}: weights are used where they cannot be quantized ({calls}); "
                "convolutions and linear layers must be nn.Conv1d/2d/3d or nn.Linear modules with their own forward"
            )
        if not running:
            raise SchemeError(f"scheme {scheme}: the network has no convolution or linear layer to quantize")
        if "" in running:
            raise SchemeError(f"scheme {scheme}: the network is a layer itself; put it into nn.Sequential(layer)")
        bits = {name: scheme.bits_for(name) for name in running}
        return {name: layer for name, layer in bits.items() if layer.weight is not None}

    def _reestimate(self, network: nn.Module, layers: dict[str, LayerBits], scheme: QuantScheme) -> None:
        """Puts statistics into the network's norms that were estimated with weights and activations quantized.

        Activations are quantized with the range of each batch, weights as they will be after folding. Where quantizing
        and folding commute, that is exact. Elsewhere a new variance would change the folded weight and so its grid,
        which may round weak channels to nothing, give them huge gains and widen the grid still more: there only the
        mean is renewed, which lands in the bias (bias correction, Nagel et al. 2019, arXiv 1906.04721, section 4.2).

        A channel that quantization silences has variance 0, and its norm would amplify whatever comes through later by
        1 / sqrt(eps), from layer to layer, until activation ranges are its alone: no variance falls below HOLD of what
        it is in float.

        Norms that stay in the network keep their float statistics where biases are corrected: both would take the same
        error off.
        """
        noisy = copy.deepcopy(network)
        _quantize_layers(noisy, layers, scheme, self._gains(network) if scheme.fold else {})
        estimate_in_place(noisy, self.images, self.batch_size)
        folded = {norm for _, norm in self.data_flow.norm_pairs} if scheme.fold else set()
        grid_depends = set() if scheme.folding_commutes else folded
        for name, norm in network.named_modules():
            if isinstance(norm, BatchNorm) and (name in folded or "correct_bias" not in scheme.steps):
                state = noisy.get_submodule(name).state_dict()
                if name in grid_depends:
                    state["running_var"] = norm.state_dict()["running_var"]
                else:
                    state["running_var"] = state["running_var"].maximum(HOLD * norm.state_dict()["running_var"])
                norm.load_state_dict(state)

    def _floor_variances(self, network: nn.Module, scheme: QuantScheme) -> None:
        for _, name in self.data_flow.norm_pairs if scheme.variance_floor else ():
            variance = network.get_submodule(name).running_var
            assert isinstance(variance, Tensor)
            variance.clamp_(min=scheme.variance_floor * variance.median())

    def _gains(self, network: nn.Module) -> dict[str, Tensor]:
        return {layer: fold_gain(network.get_submodule(norm), layer) for layer, norm in self.data_flow.norm_pairs}


def _quantize_layers(
    network: nn.Module, layers: dict[str, LayerBits], scheme: QuantScheme, gains: dict[str, Tensor] | None = None
) -> None:
    for name, bits in layers.items():
        layer = network.get_submodule(name)
        replace_module(network, layer, quantize_layer(name, layer, bits, scheme, (gains or {}).get(name)))
