"""One candidate of a ranking: its name, and how its network is built.

The name is a MODEL word of the command line (`ghnq.models`): what is ranked can be scored, fine-tuned and exported by
the name in the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from ghnq import spaces
from ghnq.errors import GhnqError, GraphError
from ghnq.memory import available_memory
from ghnq.models import instantiate, load_object
from ghnq.spaces import Spec

COPIES = 6
"""Tensors for each parameter while a network is measured: the user's, predicted, calibrated, quantized, two passing."""
_FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that may be ranked.

    Attributes:
        name: The MODEL word that names it.
        value: A module, or a class or function that returns one; None for a member of a space, and where the name says
            it (`load_object`).
        space: The name of the space that it is a member of; empty for a network of the user's.
        spec: The member; None for a network of the user's.
    """

    name: str
    value: object = None
    space: str = ""
    spec: Spec | None = None

    def build(self, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Returns the network for images of (C, H, W); members of a space are on the `meta` device.

        Raises:
            GraphError: It is not a module, or needs more memory than there is.
            Exception: Whatever the user's code raises.
        """
        if self.spec is not None:
            channels, space = input_shape[0], spaces.get(self.space)
            return space.build(self.spec, in_channels=channels, num_classes=num_classes, device="meta")
        value = load_object(self.name) if self.value is None else self.value
        if not isinstance(value, nn.Module):
            trial = called_on_meta(value)
            check_memory(0 if trial is None else sum(each.numel() for each in trial.parameters()))
        return instantiate(value, self.name)

    def __reduce__(self) -> tuple[type[Candidate], tuple[str, None, str, Spec | None]]:
        """Sends a network of the user's to another process by its name; there its file is imported anew."""
        return Candidate, (self.name, None, self.space, self.spec)


@dataclass(frozen=True)
class Failure:
    """A candidate that cannot be ranked, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Candidates:
    """What the words of a command name.

    Attributes:
        usable: The candidates, by name, in the order of the words.
        failures: Those that failed before their network was built.
    """

    usable: dict[str, Candidate] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.usable)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.usable.values())


def check_memory(parameters: int) -> None:
    """Checks that a network of so many parameters can be measured in the memory that is available.

    Raises:
        GraphError: It cannot.
    """
    needed, available = COPIES * _FLOAT_BYTES * parameters, available_memory()
    if available is not None and needed > available:
        raise GraphError(
            f"needs about {needed / 1e9:,.1f} GB of memory ({parameters:,} parameters, {COPIES} copies while it "
            f"is measured), and {available / 1e9:,.1f} GB are available"
        )


def called_on_meta(value: object) -> nn.Module | None:
    """Returns a module itself, or what a function returns, without memory for its tensors; None where it does not."""
    if isinstance(value, nn.Module) or inspect.isgeneratorfunction(value) or not callable(value):
        return value if isinstance(value, nn.Module) else None
    try:
        with torch.device("meta"):
            module = cast(Callable[[], object], value)()
    except Exception:  # noqa: BLE001 - the user's code may need values of its tensors; it is called as it is then
        return None
    return module if isinstance(module, nn.Module) else None


def reason_of(error: Exception) -> str:
    """Returns one line that says why a candidate failed: our own message, or the class and message of another error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, GhnqError) else f"{type(error).__name__}: {text}"
