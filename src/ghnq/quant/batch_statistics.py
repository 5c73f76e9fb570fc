"""The statistics of every batch norm that a network calls, however it calls it.

Modules that are called, `norm.forward(x)`, and `F.batch_norm` with buffers of one's own all end in `F.batch_norm` or
`torch.batch_norm`; these are observed, and not the calls of modules.

Dimensions: C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Positional arguments of the two functions, in their order.
_ARGUMENTS: dict[Callable[..., object], tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    torch.batch_norm: (
        "input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled",
    ),
}  # fmt: skip


class PooledStatistics:
    """Mean and sum of squared deviations of all input values of a norm, merged batch by batch, in float64.

    The update is that of Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample
    variances.

    Attributes:
        runs: Batches that were merged.
    """

    def __init__(self) -> None:
        self.count, self.runs = 0, 0  # values per channel, and batches
        self.mean_C: Tensor | float = 0.0
        self.squares_C: Tensor | float = 0.0

    def update(self, mean_C: Tensor, variance_C: Tensor, values: Tensor) -> None:
        """Merges a batch: its mean, its unbiased variance, and its values [B, C, ...], which are only counted."""
        count = values.numel() // values.shape[1]
        total = self.count + count
        shift_C = mean_C.double() - self.mean_C
        batch_squares_C = variance_C.double() * (count - 1)
        self.squares_C = self.squares_C + batch_squares_C + shift_C**2 * (self.count * count / total)
        self.mean_C = self.mean_C + shift_C * (count / total)
        self.count, self.runs = total, self.runs + 1

    def store(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Writes mean and unbiased variance; without any batch nothing is written."""
        if self.runs:
            assert isinstance(self.squares_C, Tensor)
            mean_C.copy_(torch.as_tensor(self.mean_C))
            variance_C.copy_(self.squares_C / (self.count - 1))


class BatchStatistics(TorchFunctionMode):
    """While it is active, norms with the given running means normalise with the statistics of the batch.

    Args:
        means: Running means, which are overwritten, as are the variances that belong to them.

    Attributes:
        pooled: The statistics of each norm that was called, by the id of its running mean.
        variances: The running variance of each of these.
    """

    def __init__(self, means: Sequence[Tensor]) -> None:
        super().__init__()
        self.pooled: dict[int, PooledStatistics] = {}
        self.variances: dict[int, Tensor] = {}
        self._means = {id(mean) for mean in means}
        self._unobserved: dict[nn.Module, PooledStatistics] = {}
        self._runs_before: dict[nn.Module, int] = {}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        names = _ARGUMENTS.get(func)
        if names is None:
            return func(*args, **kwargs)
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        mean, variance, values = given.get("running_mean"), given.get("running_var"), given["input"]
        if id(mean) not in self._means or not isinstance(variance, Tensor):
            return func(*args, **kwargs)
        assert isinstance(mean, Tensor)
        assert isinstance(values, Tensor)
        # With momentum 1, the running statistics are those of this batch.
        given |= {"training": True, "momentum": 1.0}
        positional = () if func is F.batch_norm else names  # those of torch.batch_norm are all positional
        result = func(*map(given.get, positional), **({} if positional else given))
        self.pooled.setdefault(id(mean), PooledStatistics()).update(mean, variance, values)
        self.variances[id(mean)] = variance
        return result

    def after_norm(self, norm: nn.Module, args: object, output: Tensor) -> None:
        """The forward hook of a norm in train mode, for norms that compute their statistics without `F.batch_norm`."""
        mean, variance = norm.running_mean, norm.running_var
        runs = self.pooled[id(mean)].runs if id(mean) in self.pooled else 0
        if runs == self._runs_before.get(norm, 0):
            assert isinstance(mean, Tensor)
            assert isinstance(variance, Tensor)
            self._unobserved.setdefault(norm, PooledStatistics()).update(mean, variance, output)
        self._runs_before[norm] = runs

    def of(self, norm: nn.Module) -> PooledStatistics | None:
        """Returns the statistics of a norm; None if it did not run."""
        return self._unobserved.get(norm) or self.pooled.get(id(norm.running_mean))
