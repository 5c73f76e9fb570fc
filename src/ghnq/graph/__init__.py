"""What an architecture is, and how it is read from a module."""

from .ir import ArchGraph as ArchGraph
from .ir import Node as Node
from .ir import Parameter as Parameter
from .ops import OPS as OPS
from .trace import trace as trace
