"""What is measured over a space: the accuracy of predicted networks, in float and quantized, as one table."""

from __future__ import annotations

from ghnq.evaluation.architecture_selection import architectures as architectures
from ghnq.evaluation.named_schemes import DEFAULT_SCHEMES as DEFAULT_SCHEMES
from ghnq.evaluation.protocol import evaluate as evaluate
from ghnq.evaluation.provenance import described as described
from ghnq.evaluation.provenance import machines_of as machines_of
from ghnq.evaluation.result_tables import markdown_table as markdown_table
from ghnq.evaluation.result_tables import summary_table as summary_table
from ghnq.evaluation.results import Results as Results
from ghnq.prediction.accuracy import count_correct as count_correct
