"""Networks with layers a, b and c in which the tensor between two layers has other uses, or a layer runs twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoConsumers(nn.Module):
    """Two consumers of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.b(x) + self.c(x)


class Residual(TwoConsumers):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return x + self.b(x)


class RunsTwice(TwoConsumers):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.b(F.relu(self.a(x)))))


class Output(TwoConsumers):
    """The tensor in between is also an output of the network."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.a(x))
        return self.b(x), x


class TiedWeights(TwoConsumers):
    def __init__(self) -> None:
        super().__init__()
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.sigmoid(self.b(F.relu(self.a(x)))))


class ChannelMean(TwoConsumers):
    """A mean over channels whose result happens to have the same first two sizes."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)[:, :, :4]
        return self.b(y.mean(1)[..., None])


class UsedInNumpy(TwoConsumers):
    """The values are used in numpy."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        return self.b(y) + float(y.detach().numpy().mean())


class ChangedAfterwards(TwoConsumers):
    """The tensor is changed in place after it was consumed."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = F.relu(y)
        y.add_(1)
        return self.b(z) + y


class ReadsShape(TwoConsumers):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x), inplace=True)
        assert y.shape[1] == y.size(1) == 4
        return self.b(y.contiguous())


NOT_RELATED: tuple[type[TwoConsumers], ...] = (
    TwoConsumers, Residual, RunsTwice, Output, TiedWeights, ChannelMean, UsedInNumpy, ChangedAfterwards,
)  # fmt: skip
