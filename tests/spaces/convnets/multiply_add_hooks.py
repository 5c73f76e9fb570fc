"""An independent count of multiply-adds, by forward hooks."""

from torch import Tensor, nn


class MultiplyAddHooks:
    """Counts multiply-adds of convolutions and linear layers from their real outputs."""

    def __init__(self, module: nn.Module) -> None:
        self.multiply_adds = 0
        for child in module.modules():
            if isinstance(child, nn.Conv2d):
                child.register_forward_hook(self._conv)
            elif isinstance(child, nn.Linear):
                child.register_forward_hook(self._linear)

    def _conv(self, module: nn.Conv2d, inputs: object, output: Tensor) -> None:
        per_output = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        self.multiply_adds += output[0].numel() * per_output

    def _linear(self, module: nn.Linear, inputs: object, output: Tensor) -> None:
        self.multiply_adds += output[0].numel() * module.in_features
