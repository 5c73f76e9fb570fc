"""`ghnq.quantize`: a network and a scheme in, a quantized network out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor, nn

from ghnq.quant.pipeline import prepare
from ghnq.quant.scheme import QuantScheme
from ghnq.quant.trainable import TrainableNetwork


@overload
def quantize(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    protocol: str = "deploy",
    steps: Sequence[str] | None = None,
    batch_size: int = 256,
    standardise: bool | None = None,
    trainable: Literal[False] = False,
) -> nn.Module: ...


@overload
def quantize(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    protocol: str = "deploy",
    steps: Sequence[str] | None = None,
    batch_size: int = 256,
    standardise: bool | None = None,
    trainable: Literal[True],
) -> TrainableNetwork: ...


def quantize(
    module: nn.Module,
    scheme: QuantScheme | str,
    *,
    calibration: Tensor,
    protocol: str = "deploy",
    steps: Sequence[str] | None = None,
    batch_size: int = 256,
    standardise: bool | None = None,
    trainable: bool = False,
) -> nn.Module:
    """Returns a new network that computes in float arithmetic what the quantized network computes.

    Args:
        module: The float network, which is not changed. float16 and bfloat16 are cast to float32, and the result is
            float32; it takes images of both types. Parameters that are computed from others (`weight_norm`, pruning)
            are constants in the result.
        scheme: Notation such as `w4a8`, a scheme file, or a QuantScheme. `float32` only estimates the batch-norm
            statistics and folds.
        calibration: Normalised float images [B, C, H, W] of the training split.
        protocol: `deploy` or `paper`; decides what the notation of a scheme leaves open.
        steps: Post-training steps (`ghnq.quant.POST_TRAINING_STEPS`); None keeps those of the scheme.
        batch_size: Images that run at once.
        standardise: See `prepare`.
        trainable: Whether to return a network in train mode whose float weights can be trained through quantization,
            with an optimizer and a loop of your own; `deploy` of that network then returns the quantized one
            (`ghnq.quant.TrainableNetwork`).

    Warns:
        GhnqWarning: Wrappers are left out, SyncBatchNorm is converted, functions are random in eval mode, layers in use
            are not registered, or products with parameters stay in float.

    Raises:
        SchemeError: The scheme, protocol or step is unknown, there is nothing to quantize, or a layer is not supported.
        NotFiniteError: A parameter or an activation is NaN or infinite.
        DataError: The calibration images cannot be used.
    """
    changes = {} if steps is None else {"steps": tuple(steps)}
    scheme = QuantScheme.parse(scheme, protocol=protocol, **changes)
    prepared = prepare(module, calibration, batch_size=batch_size, standardise=standardise)
    return TrainableNetwork.of(prepared, scheme) if trainable else prepared.quantize(scheme)
