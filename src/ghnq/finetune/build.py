"""The network that is trained, from the network of any source of weights."""

from __future__ import annotations

import torch

from ghnq.finetune.start import STARTS
from ghnq.prediction import Network
from ghnq.quant import QuantScheme, TrainableNetwork, prepare

_FLOAT32 = QuantScheme.parse("float32")


def trainable_network(network: Network, scheme: QuantScheme, start: str, seed: int) -> TrainableNetwork:
    """Returns the network that is trained: prepared, then changed by a start, then with quantized layers.

    Raises:
        SchemeError: The scheme cannot be applied to the network.
    """
    prepared = network.prepared(scheme)
    prepared.layers(scheme)  # refuses a scheme before anything is done
    in_float = TrainableNetwork.of(prepared, _FLOAT32).float_network()
    STARTS[start](in_float, torch.Generator().manual_seed(seed))
    again = prepare(in_float, network.calibration, standardise=False, keep_statistics=start == "identity")
    return TrainableNetwork.of(again, scheme)
