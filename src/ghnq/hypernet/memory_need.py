"""Whether a hypernetwork fits into memory, told from its configuration before anything of it is allocated."""

from __future__ import annotations

from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.channel_modulation import MAX_CHANNELS
from ghnq.memory import available_memory

BYTES = 4  # of a float32


def decoder_parameters(config: GHNConfig) -> int:
    """Returns the number of parameters of the decoders, without biases: what grows with `max_shape` and `channel_rank`.

    The rest of a hypernetwork is small beside it, so that this is a close lower bound of all parameters.
    """
    out, in_, height, width = config.max_shape
    inner, outer = config.decoder_widths
    kernels = 2 if config.depthwise == "own" else 1
    if config.decoder == "conv":
        blocks = out * in_ + (out if config.depthwise == "own" else 0)
        weights = kernels * (config.hidden * inner * height * width + inner * outer) + outer * blocks
    else:
        factors = out * height + in_ * width + (out * height + width if config.depthwise == "own" else 0)
        dense = config.hidden * inner + inner * outer + outer * 2 * config.rank**2
        weights = kernels * dense + config.rank * factors
    vectors = 2 * config.hidden**2 + 4 * config.hidden * max(out, in_)
    codes = 3 * MAX_CHANNELS * config.channel_rank
    return weights + vectors + codes


def memory_shortage(config: GHNConfig, *, copies: int = 1) -> str | None:
    """Returns what is wrong where a hypernetwork needs more memory than there is, and None where it does not.

    Args:
        copies: How many tensors there are for each parameter, in all processes.
    """
    needed, available = copies * BYTES * decoder_parameters(config), available_memory()
    if available is None or needed <= available:
        return None
    return (
        f"the hypernetwork (max_shape {list(config.max_shape)}, channel_rank {config.channel_rank}, "
        f"decoder {config.decoder!r}) needs at least {needed / 1e9:,.1f} GB of memory, and {available / 1e9:,.1f} GB "
        "are available"
    )
