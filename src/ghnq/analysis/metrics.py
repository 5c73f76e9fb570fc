"""How far the logits of a quantized network are from those of the same network in float.

Dimensions: B images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch.nn.functional as F
from torch import Tensor

from ghnq.errors import NotFiniteError
from ghnq.prediction import logits_of
from ghnq.quant import Prepared, QuantScheme


@dataclass(frozen=True)
class Metrics:
    """What a quantized network computes, compared with the float network of the same weights.

    A network that overflows has accuracy 0, infinite loss and infinite divergence.

    Attributes:
        accuracy: In percent.
        loss: Mean cross entropy, in nats.
        divergence: Mean KL(float || quantized) of the class probabilities, in nats.
        sqnr: Signal-to-quantization-noise ratio of the logits, in dB; infinite where nothing changed.
    """

    accuracy: float
    loss: float
    divergence: float
    sqnr: float

    def document(self) -> dict[str, float | None]:
        """Returns the metrics for JSON: null for what is infinite."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}

    def cells(self) -> list[str]:
        """Returns the metrics for a table: accuracy, loss, divergence in nats / 1000, SQNR."""
        return [f"{self.accuracy:.1f}", f"{self.loss:.3f}", f"{1000 * self.divergence:.2f}", f"{self.sqnr:.1f}"]


def compare(logits: Tensor | None, reference: Tensor, labels: Tensor) -> Metrics:
    """Compares logits [B, K] with those of the float network [B, K]; None is a network that overflows.

    Args:
        labels: The right class of each image, [B].
    """
    if logits is None:
        return Metrics(0.0, math.inf, math.inf, -math.inf)
    noise = float((logits.double() - reference).square().sum())
    power = float(reference.double().square().sum())
    return Metrics(
        accuracy=100 * float((logits.argmax(1) == labels).double().mean()),
        loss=float(F.cross_entropy(logits.double(), labels)),
        divergence=divergence(logits, reference),
        sqnr=math.inf if noise == 0 else 10 * math.log10(max(power, 1e-300) / noise),
    )


def divergence(logits: Tensor | None, reference: Tensor) -> float:
    """Returns the mean KL divergence of the class probabilities from the reference's, in nats; infinite for None."""
    if logits is None:
        return math.inf
    log_probabilities, log_reference = F.log_softmax(logits.double(), 1), F.log_softmax(reference.double(), 1)
    return max(0.0, float(F.kl_div(log_probabilities, log_reference, reduction="batchmean", log_target=True)))


def reference_logits(prepared: Prepared, images: Tensor) -> Tensor:
    """Returns the logits [B, K] of the network in float, which others are compared with.

    Raises:
        NotFiniteError: A logit is NaN or infinite.
    """
    logits = logits_of(prepared.quantize("float32"), images)
    nonfinite = int((~logits.isfinite()).any(1).sum())
    if nonfinite:
        raise NotFiniteError(
            f"in float the network gives NaN or infinite logits for {nonfinite} of {len(logits)} images, so there is "
            "nothing to compare with: look for a constant that is not finite, or for values that overflow float32"
        )
    return logits


def quantized_logits(prepared: Prepared, scheme: QuantScheme, images: Tensor) -> Tensor | None:
    """Returns the logits [B, K] of the network quantized to a scheme; None where it overflows."""
    try:
        logits = logits_of(prepared.quantize(scheme), images)
    except NotFiniteError:
        return None
    return logits if bool(logits.isfinite().all()) else None
