"""Predicted weights that are calibrated once for all, as files of weights hold them: ordinary weights of the module."""

from __future__ import annotations

from ghnq._version import __version__
from ghnq.commands.weight_options import ChosenWeights
from ghnq.graph import ArchGraph
from ghnq.prediction import Network, StoredWeights
from ghnq.prediction.stored_weights import about_images
from ghnq.quant import QuantScheme, TrainableNetwork
from ghnq.quant.trainable import standardised_but_tied
from ghnq.recorded_names import checkpoint_name, model_name

_FLOAT32 = QuantScheme.parse("float32")


def calibrated_weights(
    network: Network, chosen: ChosenWeights, model: str, scheme: QuantScheme
) -> tuple[StoredWeights, list[str]]:
    """Predicts for a scheme, calibrates the norms on the images, and scales convolutions without a norm.

    Args:
        network: The model with the source of its parameters.
        chosen: Where they come from, for the header of the file.
        model: The reference to the model, for the header.

    Returns:
        The weights, and warnings about them.
    """
    prepared, warnings = network.prepared(scheme), []
    tied = standardised_but_tied(prepared)
    without_bias = [
        name
        for name in prepared.data_flow.unnormalised
        if name not in tied and prepared.network.get_submodule(name).bias is None
    ]
    if without_bias:
        warnings.append(
            f"{len(without_bias)} convolutions have neither a norm nor a bias (first '{without_bias[0]}'): their "
            "outputs are scaled, but cannot be centred; without --data, commands that take --weights do both"
        )
    dataset = network.dataset
    trained = TrainableNetwork.of(prepared, _FLOAT32).float_network()
    metadata = weights_metadata(model, chosen.name, chosen.sha256, scheme, dataset.input_shape, network.graph)
    metadata |= about_images(dataset) | {
        "standardise": "false",
        "calibrated": "true",
        **({} if chosen.head is None else {"head": chosen.head}),
    }
    return StoredWeights.of(trained, network.module, metadata), warnings


def weights_metadata(
    model: str, checkpoint: str, sha256: str, scheme: QuantScheme, shape: tuple[int, int, int], graph: ArchGraph
) -> dict[str, str]:
    """Returns what a file of predicted weights says about itself.

    Args:
        sha256: Of the checkpoint.
        shape: Of an image, (C, H, W).
    """
    return {
        "format": "pt",
        "ghnq_version": __version__,
        "model": model_name(model),
        "checkpoint": checkpoint_name(checkpoint),
        "checkpoint_sha256": sha256,
        "scheme": str(scheme),
        "input_shape": ",".join(map(str, shape)),
        "num_classes": str(graph.num_outputs),
    }
