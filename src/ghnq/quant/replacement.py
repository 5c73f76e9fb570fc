"""Replacing a module of a network by another one."""

from __future__ import annotations

from torch import nn


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replaces a module under every name that it has in the network, and puts the new one into the same mode."""
    new.training = old.training
    for name in [name for name, module in network.named_modules(remove_duplicate=False) if module is old]:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)
