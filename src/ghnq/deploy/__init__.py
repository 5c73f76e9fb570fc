"""To the device: networks as files that integer kernels run, and the proof that they do what was simulated."""

from ghnq.deploy.costs import Profile as Profile
from ghnq.deploy.costs import profile as profile
from ghnq.deploy.export import Exported as Exported
from ghnq.deploy.export import export_onnx as export_onnx
from ghnq.deploy.export import export_program as export_program
from ghnq.deploy.integers import in_integers as in_integers
from ghnq.deploy.lowering import compiled as compiled
from ghnq.deploy.lowering import lower as lower
from ghnq.deploy.metadata import Origin as Origin
from ghnq.deploy.parity import Parity as Parity
from ghnq.deploy.parity import verify as verify
from ghnq.deploy.program_file import load_program as load_program
from ghnq.deploy.program_parity import ProgramParity as ProgramParity
from ghnq.deploy.program_parity import verify_program as verify_program
from ghnq.deploy.simulation import simulate as simulate
