"""What the oldest torch of the range cannot do: marks for tests that need more."""

from __future__ import annotations

import pytest
import torch

from ghnq.torch_compat import has_program_archive

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

needs_program_files = pytest.mark.skipif(not has_program_archive(), reason=".pt2 files need torch 2.8")
needs_exported_fft = pytest.mark.skipif(TORCH < (2, 7), reason="torch.export 2.6 refuses this Fourier transform itself")
