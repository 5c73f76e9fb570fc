"""Published weights in the layout of this package.

Supported are GHN-1, GHN-2 and MLP (`facebookresearch/ppuda`), and GHN-3 (`SamsungSAILMontreal/ghn3`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ghnq.errors import CheckpointError
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.model import GHN
from ghnq.validation_errors import explain

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
    r"gnn\.0\.attn\.edge_embed\.embed\.": "encoder.edges.distance.",
    r"gnn\.0\.attn\.proj_e\.0\.": "encoder.edges.inner.",
    r"gnn\.0\.attn\.proj_e\.2\.": "encoder.edges.outer.",
    r"(gnn\.0\.)?centrality_embed_in\.": "encoder.in_degree.",
    r"(gnn\.0\.)?centrality_embed_out\.": "encoder.out_degree.",
    r"(gnn\.0\.)?input_dist_embed\.": "encoder.input_distance.",
    r"gnn\.(\d+)\.ln1\.": r"encoder.layers.\1.attention_norm.",
    r"gnn\.(\d+)\.attn\.to_qkv\.": r"encoder.layers.\1.qkv.",
    r"gnn\.(\d+)\.attn\.to_out\.0\.": r"encoder.layers.\1.out.",
    r"gnn\.(\d+)\.ln2\.": r"encoder.layers.\1.mlp_norm.",
    r"gnn\.(\d+)\.ff\.net\.0\.": r"encoder.layers.\1.inner.",
    r"gnn\.(\d+)\.ff\.net\.3\.": r"encoder.layers.\1.outer.",
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
"""Pattern of a published name -> name here."""
READABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CONFIG_KEYS = {
    "max_shape", "num_classes", "hypernet", "decoder", "weight_norm", "ve", "layernorm", "hid",
    "heads", "layers", "is_ghn2", "pretrained",
}  # fmt: skip


def from_published(config: Mapping[str, Any] | None, state: Mapping[str, Tensor]) -> GHN:
    """Builds a hypernetwork from published weights.

    Args:
        config: The published configuration; None: it is inferred from the shapes of the tensors.
        state: The published state dictionary.

    Raises:
        CheckpointError: The configuration or the layout is not one of theirs; the message names what does not fit.
    """
    transformer = any(key.startswith("gnn.0.attn.") for key in state)
    config = dict(infer_config(state) if config is None else config)
    unknown = config.keys() - CONFIG_KEYS
    if unknown or not {"max_shape", "num_classes"} <= config.keys():
        raise CheckpointError(f"expected the configuration keys {sorted(CONFIG_KEYS)}, got {sorted(map(str, config))}")
    try:
        ours = _our_config(config, transformer)
        # On meta, so that nothing is allocated before the sizes are known to fit.
        with torch.device("meta"):
            expected = GHN(ours).state_dict()
    except ValidationError as error:
        raise CheckpointError(f"this published configuration cannot be used: {explain(error, GHNConfig)}") from error
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"this published configuration cannot be used: {error}") from error
    reshaped = _reshaped(_renamed(state), expected)
    ghn = GHN(ours)
    ghn.load_state_dict(reshaped)
    return ghn.eval()


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the configuration of a state dictionary, inferred from the shapes of its tensors.

    Raises:
        CheckpointError: A tensor that is needed for it is missing.
    """

    def size(key: str, dimension: int = 0) -> int:
        if key not in state or state[key].dim() <= dimension:
            raise CheckpointError(
                f"there is no configuration, and no tensor '{key}' to infer it from; expected the state dictionary of "
                f"GHN-1, GHN-2, GHN-3 or the MLP, got {_first_names(state)}"
            )
        return state[key].shape[dimension]

    most = math.isqrt(size("decoder.conv.2.weight"))
    kernel = math.isqrt(size("decoder.fc.0.weight") // max(1, size("decoder.conv.0.weight", 1)))
    config = {
        "hid": size("embed.weight", 1),
        "max_shape": (most, most, kernel, kernel),
        "num_classes": size("decoder.class_layer_predictor.1.weight"),
        "weight_norm": True,
        "layernorm": "ln.weight" in state,
        "ve": True,
    }
    if any(key.startswith("gnn.0.attn.") for key in state):
        layers = sum(key.startswith("gnn.") and key.endswith(".ln1.weight") for key in state)
        return config | {"layers": layers, "heads": size("gnn.0.attn.proj_e.2.weight")}
    if "gnn.gru.weight_ih" in state:
        return config | {"ve": any(key.startswith("gnn.mlp_ve.") for key in state)}
    return config | {"hypernet": "mlp"}


def _our_config(config: Mapping[str, Any], transformer: bool) -> GHNConfig:
    chosen = {"layers": config.get("layers", 3), "heads": config.get("heads", 8)} if transformer else {}
    return GHNConfig(
        num_classes=config["num_classes"],
        hidden=config.get("hid", 32),
        max_shape=tuple(config["max_shape"]),
        encoder="graphormer" if transformer else config.get("hypernet", "gatedgnn"),
        virtual_edges=config.get("ve", False),
        layer_norm=config.get("layernorm", False),
        decoder=config.get("decoder", "conv"),
        depthwise="shared",
        normalise=config.get("weight_norm", False),
        kernel="centre" if transformer else "corner",
        **chosen,
    )


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors under the names used here; raises CheckpointError where two get the same name."""
    theirs: dict[str, str] = {}
    for key in state:
        before = theirs.setdefault(_rename(key), key)
        if before != key:
            raise CheckpointError(
                f"the tensors '{before}' and '{key}' are both '{_rename(key)}' here; keep one of them"
            )
    return {ours: state[key] for ours, key in theirs.items()}


def _reshaped(renamed: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors in the expected shapes: 1x1 convolutions are stored with four dimensions or two."""
    if renamed.keys() != expected.keys():
        raise CheckpointError(
            f"the published weights do not fit: missing {sorted(expected.keys() - renamed.keys())}, "
            f"unknown {sorted(renamed.keys() - expected.keys())}"
        )
    reshaped: dict[str, Tensor] = {}
    for key, tensor in renamed.items():
        if _without_ones(tensor.shape) != _without_ones(expected[key].shape):
            raise CheckpointError(
                f"the published weights do not fit their configuration: '{key}' has shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[key].shape)}"
            )
        if tensor.dtype not in READABLE or tensor.layout is not torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"'{key}' is a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}; expected dense "
                "floating-point numbers"
            )
        reshaped[key] = tensor.reshape(expected[key].shape).to(expected[key].dtype)
        if not bool(reshaped[key].isfinite().all()):
            raise CheckpointError(f"'{key}' holds values that are NaN, infinite, or too large for float32")
    return reshaped


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _first_names(state: Mapping[str, Tensor]) -> str:
    names = sorted(map(str, state))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"


def _rename(key: str) -> str:
    for pattern, ours in RENAMES.items():
        renamed, count = re.subn(f"^{pattern}", ours, key)
        if count:
            return renamed
    return key
