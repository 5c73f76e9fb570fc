"""What an architecture is, and how it is read from a module."""

from ghnq.graph.ir import ArchGraph as ArchGraph
from ghnq.graph.ir import Node as Node
from ghnq.graph.ir import Parameter as Parameter
from ghnq.graph.ops import OPS as OPS
from ghnq.graph.tracing.trace import trace as trace
