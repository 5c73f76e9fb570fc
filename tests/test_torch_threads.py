"""One thread inside a block, and as many as before behind it."""

from __future__ import annotations

import pytest
import torch

from ghnq.torch_threads import one_torch_thread


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), one_torch_thread():
        raise KeyError
    assert torch.get_num_threads() == before
