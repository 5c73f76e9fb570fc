"""Deployment: networks as files that integer kernels run, their parity with the simulation, and their cost."""

from __future__ import annotations

from ghnq.deploy.cost.cost_profile import Profile as Profile
from ghnq.deploy.cost.cost_profile import profile as profile
from ghnq.deploy.export import Exported as Exported
from ghnq.deploy.export import export_onnx as export_onnx
from ghnq.deploy.export import export_program as export_program
from ghnq.deploy.graph.integer_arithmetic import in_integers as in_integers
from ghnq.deploy.graph.simulation import simulate as simulate
from ghnq.deploy.metadata import Origin as Origin
from ghnq.deploy.parity import Parity as Parity
from ghnq.deploy.parity import ProgramParity as ProgramParity
from ghnq.deploy.parity import verify as verify
from ghnq.deploy.parity import verify_program as verify_program
from ghnq.deploy.pt2e.lowering import compiled as compiled
from ghnq.deploy.pt2e.lowering import lower as lower
from ghnq.deploy.pt2e.program_file import load_program as load_program
