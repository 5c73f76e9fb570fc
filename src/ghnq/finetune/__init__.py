"""One network trained on: in float, or through quantization as it will be deployed."""

from __future__ import annotations

from ghnq.finetune.job import Job as Job
from ghnq.finetune.job import Settings as Settings
from ghnq.finetune.loop import finetune as finetune
from ghnq.finetune.result import Result as Result
