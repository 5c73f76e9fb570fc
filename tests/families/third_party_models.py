"""Image models of other packages: small configurations of `transformers`, and networks of `pytorchcv`.

Nothing is downloaded: the classes come from the packages, the weights stay random or are never made (`meta`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

CLASSES = 10


def _hf(name: str, **config: Any) -> nn.Module:
    """`transformers.<name>ForImageClassification` from its config class, with ten classes."""
    import transformers

    labels = {i: str(i) for i in range(CLASSES)}
    made = getattr(transformers, f"{name}Config")(**config, id2label=labels, label2id={v: k for k, v in labels.items()})
    return getattr(transformers, f"{name}ForImageClassification")(made)  # type: ignore[no-any-return]


def _cv(name: str, **options: Any) -> nn.Module:
    """A network of `pytorchcv` by its name."""
    from pytorchcv.model_provider import get_model

    return get_model(name, **options)  # type: ignore[no-any-return]


_VIT = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip
_STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32, 48], "depths": [1, 2, 1]}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}

TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "resnet-basic": partial(_hf, "ResNet", **_STAGES, layer_type="basic"),
    "resnet-bottleneck": partial(_hf, "ResNet", **_STAGES, layer_type="bottleneck"),
    "regnet-x": partial(_hf, "RegNet", **_STAGES, groups_width=8, layer_type="x"),
    "regnet-y": partial(_hf, "RegNet", **_STAGES, groups_width=8, layer_type="y"),
    "mobilenet_v1": partial(_hf, "MobileNetV1", depth_multiplier=0.25, image_size=32),
    "mobilenet_v2": partial(_hf, "MobileNetV2", depth_multiplier=0.25, image_size=32),
    "efficientnet": partial(
        _hf, "EfficientNet", image_size=32, width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640
    ),
    "convnext": partial(_hf, "ConvNext", hidden_sizes=[16, 32], depths=[1, 2], num_stages=2),
    "convnextv2": partial(_hf, "ConvNextV2", hidden_sizes=[16, 32], depths=[1, 2], num_stages=2),
    "mobilevit": partial(
        _hf,
        "MobileViT",
        image_size=32,
        hidden_sizes=[24, 32, 40],
        neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64],
        num_attention_heads=4,
    ),
    "mobilevitv2": partial(_hf, "MobileViTV2", image_size=64, width_multiplier=0.25),
    "poolformer": partial(_hf, "PoolFormer", hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1]),
    "levit": partial(
        _hf,
        "Levit",
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[2, 4, 6],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        down_ops=[["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 4, 4, 2, 2]],
    ),
    "swin": partial(_hf, "Swin", **_SWIN),
    "swin-absolute": partial(_hf, "Swin", **_SWIN, use_absolute_embeddings=True),
    "swinv2": partial(_hf, "Swinv2", **_SWIN),
    "vit": partial(_hf, "ViT", **_VIT),
    "vit-eager": partial(_hf, "ViT", **_VIT, attn_implementation="eager"),
    "deit": partial(_hf, "DeiT", **_VIT),
    "beit": partial(_hf, "Beit", **_VIT, use_relative_position_bias=True),
    "data2vec": partial(_hf, "Data2VecVision", **_VIT, use_shared_relative_position_bias=True),
    "dinov2": partial(_hf, "Dinov2", **_VIT),
    "dinov2-registers": partial(_hf, "Dinov2WithRegisters", **_VIT),
    "vit_msn": partial(_hf, "ViTMSN", **_VIT),
    "ijepa": partial(_hf, "IJepa", **_VIT),
    "bit": partial(_hf, "Bit", embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], num_groups=4),
    "focalnet": partial(
        _hf,
        "FocalNet",
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[1, 2],
        hidden_sizes=[16, 32],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        use_layerscale=True,
    ),
    "cvt": partial(_hf, "Cvt"),
    "pvt": partial(
        _hf, "Pvt", image_size=32, hidden_sizes=[16, 32, 40, 48], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 4]
    ),
    "pvt_v2": partial(
        _hf,
        "PvtV2",
        image_size=32,
        hidden_sizes=[16, 32, 40, 48],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 4, 4],
    ),
    "segformer": partial(
        _hf, "Segformer", hidden_sizes=[16, 32, 40, 48], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 4]
    ),
    "swiftformer": partial(_hf, "SwiftFormer", image_size=32, embed_dims=[16, 24, 32, 48], depths=[1, 1, 1, 1]),
    "hgnet_v2": partial(_hf, "HGNetV2"),
    "textnet": partial(_hf, "TextNet"),
    "hiera": partial(_hf, "Hiera"),
    "pp_lcnet": partial(_hf, "PPLCNet"),
}

# Whose images are not 3 x 32 x 32.
SHAPES = {"levit": (3, 64, 64), "mobilevitv2": (3, 64, 64), "hiera": (3, 224, 224), "cvt": (3, 64, 64)}

PYTORCHCV: dict[str, Callable[[], nn.Module]] = {
    name: partial(_cv, name)
    for line in (
        "densenet40_k12_bc_cifar10 xdensenet40_2_k24_bc_cifar10 nin_cifar10 resnet20_cifar10 preresnet20_cifar10",
        "seresnet20_cifar10 sepreresnet20_cifar10 resnext20_16x4d_cifar10 ror3_56_cifar10 rir_cifar10",
        "shakeshakeresnet20_2x16d_cifar10 diaresnet20_cifar10 fractalnet_cifar10 shufflenet_g3_wd4 shufflenetv2_wd2",
        "squeezenet_v1_1 squeezeresnet_v1_1 ghostnet mnasnet_small mobilenetv3_small_w7d20 proxylessnas_cpu igcv3_wd4",
        "hardnet39ds peleenet menet108_8x1_g3 channelnet espnetv2_wd2 dicenet_wd5 spnasnet fdmobilenet_wd4",
        "efficientnet_b0 bam_resnet18 cbam_resnet18 dla46c vovnet27s selecsls42 diracnet18v2 inceptionv3 bninception",
        "hrnet_w18_small_v1 nasnet_4a1056 xception darknet_tiny",
    )
    for name in line.split()
}
