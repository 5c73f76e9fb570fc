"""Weights of a hypernetwork for one with a wider decoder, which at first predicts the same."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ghnq.hypernet.config import GHNConfig


def is_wider(wanted: GHNConfig, found: GHNConfig) -> bool:
    """Returns whether the decoder of `wanted` can take over the weights of `found` and has more units.

    A decoder with layer norms cannot: new units would change the mean and variance of the others.
    """
    pairs = tuple(zip(wanted.decoder_widths, found.decoder_widths, strict=True))
    fits = found.decoder == "conv" and not found.decoder_norm and all(w >= f for w, f in pairs)
    return fits and any(w > f for w, f in pairs)


def with_wider_decoder(tensors: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights in the shapes of `fresh`, of a decoder that computes what that of `tensors` does.

    New units keep their fresh weights and learn at once; what leads from them to units that were there is zero, as in
    function-preserving growth (Wei et al. 2016, arXiv 1603.01670).

    Args:
        tensors: The weights of a hypernetwork.
        fresh: Those of a new one, of which some in the decoder are larger.
    """
    return {name: _grown(tensor, fresh[name]) if name in fresh else tensor for name, tensor in tensors.items()}


def _grown(tensor: Tensor, fresh: Tensor) -> Tensor:
    """A matrix [out, in], or a vector [out], in the first rows and columns of a larger one."""
    grown = fresh.clone()
    grown[: len(tensor)] = 0
    grown[tuple(slice(n) for n in tensor.shape)] = tensor
    return grown
