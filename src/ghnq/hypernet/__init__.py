"""The graph hypernetwork: graphs -> parameters."""

from __future__ import annotations

from ghnq.hypernet.config import GHNConfig as GHNConfig
from ghnq.hypernet.config import Task as Task
from ghnq.hypernet.initialize import initialize as initialize
from ghnq.hypernet.initialize import with_parameters as with_parameters
from ghnq.hypernet.model import GHN as GHN
