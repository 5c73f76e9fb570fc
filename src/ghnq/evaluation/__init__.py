"""How good predicted networks are, in float and quantized: the protocol, its results, its reports."""

from ghnq.evaluation.figure import draw_results as draw_results
from ghnq.evaluation.figure import write_report as write_report
from ghnq.evaluation.inputs import check_fit as check_fit
from ghnq.evaluation.inputs import check_outputs as check_outputs
from ghnq.evaluation.inputs import dataset_for as dataset_for
from ghnq.evaluation.protocol import CALIBRATION_IMAGES as CALIBRATION_IMAGES
from ghnq.evaluation.protocol import DEFAULT_SCHEMES as DEFAULT_SCHEMES
from ghnq.evaluation.protocol import architectures as architectures
from ghnq.evaluation.protocol import evaluate as evaluate
from ghnq.evaluation.provenance import described as described
from ghnq.evaluation.provenance import machines_of as machines_of
from ghnq.evaluation.result_tables import markdown_table as markdown_table
from ghnq.evaluation.result_tables import summary_table as summary_table
from ghnq.evaluation.results import Results as Results
