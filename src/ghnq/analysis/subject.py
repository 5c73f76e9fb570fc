"""One model under study: its predicted network under any scheme, and how far that is from the float one.

Dimensions: B images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.errors import DataError, NotFiniteError
from ghnq.evaluation.inputs import check_fit, check_outputs
from ghnq.evaluation.measure import BATCH
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize
from ghnq.quant import Prepared, QuantScheme, prepare


@dataclass(frozen=True)
class Figures:
    """What a quantized network answers, beside what the float network of the same weights answers.

    accuracy: percent. loss: mean cross entropy, nats. divergence: mean KL(float || quantized) of the class
    probabilities, nats. sqnr: power of the float logits over that of their change, dB; infinite where nothing changed.
    A network that overflows has accuracy 0 and infinite loss and divergence.
    """

    accuracy: float
    loss: float
    divergence: float
    sqnr: float

    def document(self) -> dict[str, float | None]:
        """As JSON knows it: null for what is infinite."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}


@dataclass(frozen=True)
class LayerCost:
    """Weights of a layer and its multiply-adds for one image."""

    weights: int
    multiply_adds: int


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, the hypernetwork that predicts its parameters, and the images.

    calibration: float32 [B, C, H, W], normalised training images.
    Raises DataError for images that do not fit the hypernetwork.
    """

    module: nn.Module
    ghn: GHN
    dataset: ImageDataset
    images: Images
    calibration: Tensor

    def __post_init__(self) -> None:
        check_fit(self.ghn, self.dataset)

    def prepared(self, scheme: QuantScheme) -> Prepared:
        """The network predicted for this precision, with float statistics.

        A hypernetwork that is not told the precision predicts once; one that is told predicts anew.
        Raises DataError where the network does not answer with a logit for each class.
        """
        return self._predict(scheme) if self.ghn.config.condition else self._prepared

    @cached_property
    def _prepared(self) -> Prepared:
        return self._predict(QuantScheme.parse("float32"))

    def _predict(self, scheme: QuantScheme) -> Prepared:
        network = initialize(self.module, self.ghn, self.dataset.input_shape, scheme=scheme)
        prepared = prepare(network, self.calibration)
        self._check_logits(prepared)
        return prepared

    def _check_logits(self, prepared: Prepared) -> None:
        with torch.no_grad():
            logits = prepared.network(prepared.images[:2])
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            came = f"a tensor of shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise DataError(f"The model answers two images with {came}; needed are logits, one row for each image.")
        check_outputs(logits.shape[1], self.dataset)

    def layer_costs(self, prepared: Prepared) -> dict[str, LayerCost]:
        """Costs of all layers that can be quantized, in the order of modules; raises SchemeError where none can."""
        names = prepared.layers(QuantScheme.parse("w8a8"))
        costs: dict[str, LayerCost] = {}
        handles = []
        for name in names:
            layer = prepared.network.get_submodule(name)

            def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                assert isinstance(layer.weight, Tensor)
                channels = layer.weight.shape[0]
                adds = output[0].numel() // channels * layer.weight.numel()
                before = costs[name].multiply_adds if name in costs else 0  # a layer that runs twice costs twice
                costs[name] = LayerCost(layer.weight.numel(), before + adds)

            handles.append(layer.register_forward_hook(hook))
        try:
            with torch.no_grad():
                prepared.network(prepared.images[:2])
        finally:
            for handle in handles:
                handle.remove()
        return {name: costs[name] for name in names}


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Logits [B, K] of a network in eval mode on normalised images [B, C, H, W]."""
    return torch.cat([network(part) for part in torch.split(images, BATCH)])


def reference_logits(prepared: Prepared, images: Tensor) -> Tensor:
    """Logits [B, K] of the network in float, which others are compared with; raises NotFiniteError where none are."""
    logits = logits_of(prepared.quantize("float32"), images)
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise NotFiniteError(
            f"in float the network gives NaN or infinite logits for {bad} of {len(logits)} images, so there is nothing "
            "to compare with: look for a constant that is not finite, or for values that overflow float32"
        )
    return logits


def logits_under(prepared: Prepared, scheme: QuantScheme, images: Tensor) -> Tensor | None:
    """Logits [B, K] of the network quantized to a scheme; None where it overflows."""
    try:
        logits = logits_of(prepared.quantize(scheme), images)
    except NotFiniteError:
        return None
    return logits if bool(logits.isfinite().all()) else None


def compare(logits: Tensor | None, reference: Tensor, labels: Tensor) -> Figures:
    """Figures of logits [B, K] beside the float network's; labels [B]."""
    if logits is None:
        return Figures(0.0, math.inf, math.inf, -math.inf)
    noise = float((logits.double() - reference).square().sum())
    power = float(reference.double().square().sum())
    return Figures(
        accuracy=100 * float((logits.argmax(1) == labels).double().mean()),
        loss=float(F.cross_entropy(logits.double(), labels)),
        divergence=divergence(logits, reference),
        sqnr=math.inf if noise == 0 else 10 * math.log10(max(power, 1e-300) / noise),
    )


def divergence(logits: Tensor | None, reference: Tensor) -> float:
    """Mean KL divergence of the class probabilities from the reference's, in nats; infinite for None."""
    if logits is None:
        return math.inf
    now, then = F.log_softmax(logits.double(), 1), F.log_softmax(reference.double(), 1)
    return max(0.0, float(F.kl_div(now, then, reduction="batchmean", log_target=True)))
