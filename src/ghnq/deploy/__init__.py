"""To the device: networks as ONNX files that integer kernels run, and the proof that they do what was simulated."""

from ghnq.deploy.costs import Profile as Profile
from ghnq.deploy.costs import profile as profile
from ghnq.deploy.export import Exported as Exported
from ghnq.deploy.export import export_onnx as export_onnx
from ghnq.deploy.integers import in_integers as in_integers
from ghnq.deploy.metadata import Origin as Origin
from ghnq.deploy.parity import Parity as Parity
from ghnq.deploy.parity import verify as verify
from ghnq.deploy.simulation import simulate as simulate
