"""The network that is trained, from the network of any source of weights."""

from __future__ import annotations

from ghnq.errors import SchemeError
from ghnq.finetune.start import STARTS
from ghnq.prediction import Network
from ghnq.quant import QuantScheme, TrainableNetwork, prepare

_FLOAT32 = QuantScheme.parse("float32")


def trainable_network(network: Network, scheme: QuantScheme, start: str) -> TrainableNetwork:
    """Returns the network that is trained: prepared, changed by a start if it is predicted, with quantized layers.

    Raises:
        SchemeError: The scheme cannot be applied to the network, or its weights are computed from others.
    """
    prepared = network.prepared(scheme)
    prepared.layers(scheme)  # refuses a scheme before anything is done
    in_float = TrainableNetwork.of(prepared, _FLOAT32).float_network()
    if network.weights.standardise:  # as predicted weights are
        STARTS[start](in_float, prepared.data_flow.norm_pairs)
    again = prepare(in_float, network.calibration, standardise=False, keep_statistics=True)
    trainable = TrainableNetwork.of(again, scheme)
    kept = trainable.network.state_dict()
    lost = [name for name in network.module.state_dict() if name not in kept]
    if lost:
        raise SchemeError(
            f"a weight of the network is computed from '{lost[0]}' (weight_norm, pruning or the like), and fine-tuning "
            "changes weights themselves: make it an ordinary one first (remove_parametrizations, remove_weight_norm)"
        )
    return trainable
