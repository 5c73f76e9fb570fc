"""Calls in eval mode that are likely mistakes in a network.

These are random functions, norms with the statistics of the batch, and layers that are not registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from ghnq.torch_compat import BatchNorm, own_parameters

# Function name -> position and default of the argument that makes it random.
_TRAINING: dict[str, tuple[int, tuple[str, ...], bool]] = {
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), (2, ("training", "train"), True)),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), (2, ("training", "train"), False)),
    "feature_dropout": (2, ("training", "train"), True),
    "rrelu": (3, ("training",), False),
    "scaled_dot_product_attention": (4, ("dropout_p",), False),
}
_RANDOM = frozenset(["rand", "rand_like", "randn", "randn_like", "bernoulli", "gumbel_softmax"])
_BATCH_NORM, _POSITION_OF_TRAINING = "batch_norm", 5  # of `F.batch_norm` and of `torch.batch_norm`
WATCHED = frozenset(_TRAINING) | _RANDOM | {_BATCH_NORM}
"""Names of functions that `Mistakes.note_call` is about, without the underscore of those in place."""


def is_random(name: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Returns whether the call of a torch function, by its name, has a random result."""
    name = name.rstrip("_")
    if name not in _TRAINING:
        return name in _RANDOM
    position, keys, default = _TRAINING[name]
    training: object = args[position] if len(args) > position else default
    for key in keys:
        training = kwargs.get(key, training)
    p = kwargs.get("p", args[1] if len(args) > 1 else None) if "dropout" in name else None
    return bool(training) and p != 0


def uses_batch_statistics(name: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Returns whether the call of a torch function, by its name, normalises with the statistics of the batch."""
    given = args[_POSITION_OF_TRAINING] if len(args) > _POSITION_OF_TRAINING else kwargs.get("training", False)
    return name == _BATCH_NORM and bool(given)


class Mistakes:
    """What a network does in eval mode that is likely a mistake; a recorder of its calls notes it.

    Args:
        network: The network that runs.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._random: dict[str, None] = {}
        self._batch_norms: dict[str, None] = {}
        self._unregistered: dict[int, nn.Parameter] = {}

    def note_call(
        self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object], *, on_images: bool
    ) -> None:
        """Notes a call of a torch function if its result is random, or depends on the other images of the batch.

        Batch norms that are modules are not noted: calibration gives statistics to those that have none. A norm of
        weights (weight standardisation) depends on no image.

        Args:
            on_images: Whether what is computed depends on the images.
        """
        if is_random(function, args, kwargs):
            self._random[f"`{function}` in {_place_of_call(self._network)}"] = None
        elif (
            on_images
            and uses_batch_statistics(function, args, kwargs)
            and not isinstance(_calling_module(self._network), BatchNorm)
        ):
            self._batch_norms[f"`{function}` in {_place_of_call(self._network)}"] = None

    def note_unregistered(self, value: object) -> None:
        """Notes a parameter that is used and is not one of the network; other values are ignored."""
        if isinstance(value, nn.Parameter):
            self._unregistered[id(value)] = value

    def texts(self) -> Iterator[str]:
        """Yields the warnings."""
        if self._random:
            yield (
                f"random in eval mode as well: {', '.join(self._random)}; the results differ from run to run (pass "
                "training=self.training to dropout functions, and register layers such as nn.Dropout)"
            )
        if self._batch_norms:
            yield (
                f"normalised with the statistics of the batch in eval mode as well: {', '.join(self._batch_norms)}; "
                "the result for an image depends on the others, nothing is calibrated or folded there, and it cannot "
                "be exported (use nn.BatchNorm2d, or give running statistics and training=self.training)"
            )
        if self._unregistered:
            places = dict.fromkeys(_place(self._network, parameter) for parameter in self._unregistered.values())
            yield (
                f"used, but not registered in the network: {', '.join(places)}; nothing is predicted, calibrated or "
                "quantized there (keep layers in nn.ModuleList or nn.ModuleDict)"
            )


def _calling_module(network: nn.Module) -> nn.Module:
    """Returns the innermost module of a network whose method is running."""
    modules = set(network.modules())
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and owner in modules:
            return owner
        frame = frame.f_back
    return network


def _place_of_call(network: nn.Module) -> str:
    caller = _calling_module(network)
    name = next(path for path, module in network.named_modules() if module is caller)
    return repr(name) if name else "the network"


def _place(network: nn.Module, parameter: Tensor) -> str:
    """Returns where a parameter is kept that is not registered: the attribute, or only its shape."""
    for path, module in network.named_modules():
        for name, value in module.__dict__.items():
            if name.startswith("_"):
                continue
            for layer in _layers_in(value):
                if any(own is parameter for child in layer.modules() for own in own_parameters(child).values()):
                    return f"{type(layer).__name__} in attribute {name!r} of {repr(path) if path else 'the network'}"
    return f"a parameter of shape {tuple(parameter.shape)}"


def _layers_in(value: object, depth: int = 3) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif depth and isinstance(value, list | tuple | set | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _layers_in(item, depth - 1)
