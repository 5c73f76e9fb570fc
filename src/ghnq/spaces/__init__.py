"""Search spaces: where the architectures that a hypernetwork has not seen come from."""

from __future__ import annotations

from ghnq.spaces import convnets as convnets
from ghnq.spaces.cost import Cost as Cost
from ghnq.spaces.registry import DEFAULT as DEFAULT
from ghnq.spaces.registry import get as get
from ghnq.spaces.registry import names as names
from ghnq.spaces.registry import register as register
from ghnq.spaces.registry import resolve as resolve
from ghnq.spaces.registry import unregister as unregister
from ghnq.spaces.space import Space as Space
from ghnq.spaces.space import Spec as Spec

register(convnets.SPACE)
