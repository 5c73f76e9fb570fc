"""From a float network to its simulated quantized network, step by step.

prepare:   copy -> observe the data flow -> [standardise] -> batch-norm statistics from the calibration images
quantize:  [equalize] -> re-estimate the statistics through the quantized network -> fold -> quantize weights
           -> fix activation ranges -> [correct biases]

`prepare` is the same for all schemes. Steps in brackets are optional: post-training steps, and other range estimators
and roundings, are applied if the scheme names them (`QuantScheme.steps`).

Dimensions: B images, C channels, H height, W width, O output channels of a layer.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ghnq.errors import DataError, GhnqError, GhnqWarning, SchemeError
from ghnq.module_check import failure_place
from ghnq.quant.bias_correction import correct_in_place
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.calibration import check_images, estimate_in_place, fix_activation_ranges, norms_with_statistics
from ghnq.quant.data_flow import DataFlow
from ghnq.quant.entry import observe_plain_layers, take_network
from ghnq.quant.equalization import equalize_by_data_flow
from ghnq.quant.folding import fold_gain, fold_pairs
from ghnq.quant.quantized_layers import check_finite, quantize_layer
from ghnq.quant.replacement import replace_module
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.standardisation import attach_norms, check_norms, has_predicted_weights, pairs_of, without_solved
from ghnq.torch_compat import BatchNorm


@torch.no_grad()
def prepare(
    module: nn.Module,
    calibration: Tensor,
    *,
    batch_size: int = 256,
    standardise: bool | None = None,
    keep_statistics: bool = False,
    trained_through: str | None = None,
) -> Prepared:
    """Returns a copy in eval mode with float batch-norm statistics, which can be quantized to any number of schemes.

    Args:
        module: The float network, which is not changed.
        calibration: Normalised float images [B, C, H, W] of the training split.
        batch_size: Images that run at once.
        standardise: Whether to bring the outputs of convolutions that reach no norm to mean 0 and variance 1 on the
            images (`ghnq.quant.standardisation`). None: if the weights are those that `ghnq.initialize` predicted,
            unchanged.
        keep_statistics: Whether batch norms keep the running statistics that the module has, as those of a trained
            network; norms without any get those of the images.
        trained_through: The scheme, as text, that the network was trained through: with `keep_statistics`, its
            statistics are those of the network quantized to it already.

    Warns:
        GhnqWarning: Wrappers are left out, SyncBatchNorm is converted, functions are random in eval mode, or layers in
            use are not registered in the module.

    Raises:
        SchemeError: The module cannot be taken (`ghnq.quant.entry`): it is on the meta device, lazy, recurrent, sparse,
            quantized already or compiled by TorchScript.
        NotFiniteError: A parameter is NaN or infinite.
        DataError: The calibration images cannot be used, or the network cannot run them.
    """
    network = take_network(module, "quantize")
    images = check_images(network, calibration)
    for name, child in network.named_modules():
        check_finite(name, child)
    data_flow = _observe(network, images)
    for text in data_flow.mistakes:
        warnings.warn(f"{type(network).__name__}: {text}", GhnqWarning, stacklevel=3)
    kept = norms_with_statistics(network) if keep_statistics else ()
    if has_predicted_weights(module) if standardise is None else standardise:
        data_flow = replace(data_flow, unnormalised=without_solved(network, data_flow.unnormalised))
        attach_norms(network, data_flow.unnormalised)
        data_flow = replace(data_flow, norm_pairs=data_flow.norm_pairs + pairs_of(data_flow.unnormalised))
    estimate_in_place(network, images, batch_size, keep=kept, keep_buffers=keep_statistics)
    check_norms(network)
    return Prepared(
        network=network,
        images=images,
        batch_size=batch_size,
        data_flow=data_flow,
        keep_statistics=keep_statistics,
        trained_through=trained_through,
    )


def _observe(network: nn.Module, images: Tensor) -> DataFlow:
    """Observes the data flow of 2 images, after a run of 3 to refuse networks that take one number of images only."""
    count = min(3, len(images))
    try:
        network(images[:count])
        count = 2
        return observe_plain_layers(network, images[:count])
    except GhnqError:
        raise
    except (Exception, SystemExit) as error:  # of torch, and of the network itself
        where, line = failure_place(error, network)
        cause = f"ends the program (exit code {error.code})" if isinstance(error, SystemExit) else (
            f"failed{line}: {type(error).__name__}: {error}")  # fmt: skip
        needed = "; it must take images of this size in any number" if _runs_others(network, images, count) else ""
        raise DataError(
            f"the network cannot run {count} of the calibration images of shape {tuple(images.shape)}: "
            f"{where} {cause}{needed}"
        ) from error


def _runs_others(network: nn.Module, images: Tensor, failed: int) -> bool:
    """Returns whether a network that cannot run one number of images can run another one."""
    for count in (1, 2, 3, 4, 8, 16, 32, 64, len(images)):
        if count != failed and count <= len(images):
            try:
                network(images[:count])
            except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
                continue
            return True
    return False


MIN_VARIANCE_RATIO = 0.25
"""Smallest ratio of the re-estimated variance of a norm to its float variance."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The result of `prepare`.

    Attributes:
        network: A copy of the network in eval mode with float batch-norm statistics.
        images: The calibration images [B, C, H, W].
        batch_size: Images that run at once.
        data_flow: The data flow of the network.
        keep_statistics: Whether norms keep the statistics of training.
        trained_through: The scheme, as text, that these statistics belong to.
    """

    network: nn.Module
    images: Tensor
    batch_size: int
    data_flow: DataFlow
    keep_statistics: bool = False
    trained_through: str | None = None

    @torch.no_grad()
    def quantize(self, scheme: QuantScheme | str, *, protocol: str = "deploy") -> nn.Module:
        """Returns the simulated network of one scheme; arguments and errors are those of `ghnq.quantize`."""
        scheme = QuantScheme.parse(scheme, protocol=protocol).with_searched_ranges
        layers = self.layers(scheme)
        if layers:  # A float network that overflows is evaluated as it is; in a quantized one clamping would hide it.
            for name, child in self.network.named_modules():
                check_finite(name, child, buffers=True)
        network = copy.deepcopy(self.network)
        self._floor_variances(network, scheme)
        if layers and "equalize" in scheme.steps:
            network = equalize_by_data_flow(network, self.images, self.data_flow)
        in_float = copy.deepcopy(network) if layers and "correct_bias" in scheme.steps else None
        if scheme.reestimate and self._needs_other_statistics(scheme, layers):
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
        """Returns the bit-widths of the layers that run and that the scheme quantizes, by module name.

        Raises:
            SchemeError: An override matches no layer, there is nothing to quantize, or a function with weights is
                called outside of quantizable layers.
        """
        running = [name for name, runs in self.data_flow.layer_runs.items() if runs]
        scheme.check_overrides(running)
        if scheme.is_float:
            return {}
        if self.data_flow.unquantizable:
            calls = "; ".join(self.data_flow.unquantizable)
            raise SchemeError(
                f"scheme {scheme}: weights are used where they cannot be quantized ({calls}); "
                "convolutions and linear layers must be nn.Conv1d/2d/3d or nn.Linear modules with their own forward"
            )
        if self.data_flow.products:
            warnings.warn(
                f"scheme {scheme}: these products with parameters stay in float: {', '.join(self.data_flow.products)}; "
                "nn.Linear would be quantized",
                GhnqWarning,
                stacklevel=3,
            )
        if not running:
            raise SchemeError(f"scheme {scheme}: the network has no convolution or linear layer to quantize")
        if "" in running:
            raise SchemeError(f"scheme {scheme}: the network is a layer itself; put it into nn.Sequential(layer)")
        bits = {name: scheme.bits_for(name) for name in running}
        return {name: layer for name, layer in bits.items() if layer.weight is not None}

    def _needs_other_statistics(self, scheme: QuantScheme, layers: dict[str, LayerBits]) -> bool:
        if self.keep_statistics and self.trained_through is not None:
            return self.trained_through != str(scheme)
        return bool(layers)

    def _as_trained(self, network: nn.Module) -> nn.Module:
        """Returns the network that the kept statistics belong to, with those of the calibration images instead."""
        network = copy.deepcopy(network)
        if self.trained_through is not None:
            scheme = QuantScheme.parse(self.trained_through)
            layers = self.layers(scheme)
            _quantize_layers(network, layers, scheme, self._gains(network) if scheme.fold else {})
        estimate_in_place(network, self.images, self.batch_size)
        return network

    def _reestimate(self, network: nn.Module, layers: dict[str, LayerBits], scheme: QuantScheme) -> None:
        """Replaces the statistics of the network's norms by those that they have in the quantized network.

        Activations are quantized with the range of each batch, weights as they will be after folding. If quantizing
        and folding commute, that is exact. If they do not, a new variance would change the folded weight and thereby
        its scale, which may round small channels to zero, so that their gains and the scale become larger still: then
        only the mean is replaced, which changes the bias alone (bias correction, Nagel et al. 2019, arXiv 1906.04721,
        section 4.2).

        A channel that is constant after quantization has variance 0, and its norm would amplify any later deviation by
        1 / sqrt(eps), layer after layer, until it determines the activation ranges. So no variance becomes less than
        MIN_VARIANCE_RATIO times the float variance.

        If biases are corrected, norms that are not folded keep their float statistics: both would compensate the same
        error.

        Statistics of training are those of augmented images, which the weights are used to: the calibration images say
        only by how much quantization changes them. (Replaced by those of plain images, a network trained on shifted
        images lost 6 points.)
        """
        quantized = copy.deepcopy(network)
        _quantize_layers(quantized, layers, scheme, self._gains(network) if scheme.fold else {})
        buffers = estimate_in_place(quantized, self.images, self.batch_size)
        trained = self._as_trained(network) if self.keep_statistics else None
        folded = {norm for _, norm in self.data_flow.norm_pairs} if scheme.fold else set()
        keeps_variance = set() if scheme.folding_commutes else folded
        for name, norm in network.named_modules():
            if isinstance(norm, BatchNorm) and (name in folded or "correct_bias" not in scheme.steps):
                state = quantized.get_submodule(name).state_dict()
                in_float = norm.state_dict()["running_var"]
                if trained is not None:
                    _apply_change(state, norm.state_dict(), trained.get_submodule(name).state_dict())
                estimated = state["running_var"].maximum(MIN_VARIANCE_RATIO * in_float)
                state["running_var"] = in_float if name in keeps_variance else estimated
                norm.load_state_dict(state)
        if "correct_bias" not in scheme.steps:
            for mean, variance in buffers:  # of norms that the network computes without a module
                network.get_buffer(mean).copy_(quantized.get_buffer(mean))
                in_float = network.get_buffer(variance)
                in_float.copy_(quantized.get_buffer(variance).maximum(MIN_VARIANCE_RATIO * in_float))

    def _floor_variances(self, network: nn.Module, scheme: QuantScheme) -> None:
        for _, name in self.data_flow.norm_pairs if scheme.variance_floor else ():
            variance = network.get_submodule(name).running_var
            assert isinstance(variance, Tensor)
            variance.clamp_(min=scheme.variance_floor * variance.median())

    def _gains(self, network: nn.Module) -> dict[str, Tensor]:
        return {layer: fold_gain(network.get_submodule(norm), layer) for layer, norm in self.data_flow.norm_pairs}


def _apply_change(quantized: dict[str, Tensor], kept: dict[str, Tensor], trained: dict[str, Tensor]) -> None:
    """Replaces statistics [C] of the quantized network by those of training, changed as calibration images change them.

    Args:
        quantized: Of the quantized network on calibration images; replaced.
        kept: Of training.
        trained: Of the network as it was trained, on calibration images.
    """
    variance = trained["running_var"]
    ratio = torch.where(variance > 0, kept["running_var"] / variance, 1.0)
    quantized["running_var"] = quantized["running_var"] * ratio
    shift = (quantized["running_mean"] - trained["running_mean"]) * ratio.sqrt()
    quantized["running_mean"] = kept["running_mean"] + shift


def _quantize_layers(
    network: nn.Module, layers: dict[str, LayerBits], scheme: QuantScheme, gains: dict[str, Tensor] | None = None
) -> None:
    for name, bits in layers.items():
        layer = network.get_submodule(name)
        replace_module(network, layer, quantize_layer(name, layer, bits, scheme, (gains or {}).get(name)))
