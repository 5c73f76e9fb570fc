"""The published GHN-1, GHN-2 and MLP hypernetworks (`facebookresearch/ppuda`) in our layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.model import GHN

# Their module names, as patterns, and ours.
RENAMES = {
    r"ln\.": "norm.",
    r"embed\.": "embed.op.",
    r"shape_enc\.embed_spatial\.": "embed.spatial.",
    r"shape_enc\.embed_channel\.": "embed.channel.",
    r"gnn\.mlp\.fc\.0\.": "encoder.direct.inner.",
    r"gnn\.mlp\.fc\.2\.": "encoder.direct.outer.",
    r"gnn\.mlp_ve\.fc\.0\.": "encoder.virtual.inner.",
    r"gnn\.mlp_ve\.fc\.2\.": "encoder.virtual.outer.",
    r"gnn\.gru\.": "encoder.gru.",
    r"gnn\.fc\.0\.": "encoder.inner.",
    r"gnn\.fc\.2\.": "encoder.outer.",
    r"decoder\.fc\.0\.": "decoder.dense.positions.",
    r"decoder\.conv\.0\.": "decoder.dense.mix.",
    r"decoder\.conv\.2\.": "decoder.dense.matrix.",
    r"decoder\.class_layer_predictor\.1\.": "decoder.classes.",
    r"decoder_1d\.fc\.0\.": "vectors.inner.",
    r"decoder_1d\.fc\.2\.": "vectors.outer.",
    r"bias_class\.1\.": "vectors.classes.",
}
CONFIG_KEYS = {"max_shape", "num_classes", "hypernet", "decoder", "weight_norm", "ve", "layernorm", "hid"}


def from_published(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> GHN:
    """Builds our hypernetwork from a published `config` and `state_dict`; raises CheckpointError if it is unknown."""
    unknown = config.keys() - CONFIG_KEYS
    if unknown or not {"max_shape", "num_classes"} <= config.keys():
        raise CheckpointError(f"expected the configuration keys {sorted(CONFIG_KEYS)}, got {sorted(config)}")
    try:
        ours = GHNConfig(
            num_classes=config["num_classes"],
            hidden=config.get("hid", 32),
            max_shape=tuple(config["max_shape"]),
            encoder=config.get("hypernet", "gatedgnn"),
            virtual_edges=config.get("ve", False),
            layer_norm=config.get("layernorm", False),
            decoder=config.get("decoder", "conv"),
            depthwise="shared",
            normalise=config.get("weight_norm", False),
        )
    except ValidationError as error:
        raise CheckpointError(f"this published configuration cannot be used: {error}") from error
    ghn = GHN(ours)
    expected = ghn.state_dict()
    renamed = {_rename(key): tensor for key, tensor in state.items()}
    if renamed.keys() != expected.keys():
        raise CheckpointError(
            f"the published weights do not fit: missing {sorted(expected.keys() - renamed.keys())}, "
            f"unknown {sorted(renamed.keys() - expected.keys())}"
        )
    ghn.load_state_dict({key: tensor.reshape(expected[key].shape) for key, tensor in renamed.items()})
    return ghn.eval()


def _rename(key: str) -> str:
    for pattern, ours in RENAMES.items():
        renamed, count = re.subn(f"^{pattern}", ours, key)
        if count:
            return renamed
    return key
