"""Which networks are recorded, by stand-ins that keep the rules of CUDA graphs; on a device: test_team.py."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from ghnq.hypernet.model import Parameters
from ghnq.training.networks.cuda_graphs import CudaGraphCache, Result

LIVE: Counter[int] = Counter()
DEAD: set[int] = set()


class Graph:
    """Memory ends with the last graph that is in it, and is then refused."""

    pool: int | None = None

    def capture_begin(self, *, pool: int, capture_error_mode: str) -> None:
        assert pool not in DEAD, "the memory's last graph is gone"
        LIVE[pool] += 1
        self.pool = pool

    def capture_end(self) -> None:
        pass

    def replay(self) -> None:
        pass

    def __del__(self) -> None:
        if self.pool is not None:
            LIVE[self.pool] -= 1
            if not LIVE[self.pool]:
                DEAD.add(self.pool)


class Stream:
    def wait_stream(self, other: object) -> None:
        pass


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that were run by Python, recordings among them."""
    handles = iter(range(10_000))
    LIVE.clear()
    DEAD.clear()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    return []


def play(replay: CudaGraphCache, module: nn.Module, ran: list[nn.Module]) -> None:
    def run(parameters: Parameters, images: torch.Tensor, labels: torch.Tensor) -> Result:
        ran.append(module)
        return torch.zeros(()), torch.zeros(()), {name: torch.zeros_like(t) for name, t in parameters.items()}

    replay(module, run, {"w": torch.ones(3)}, torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.long))


def test_a_network_is_run_once_recorded_once_and_then_played(ran: list[nn.Module]) -> None:
    replay, module = CudaGraphCache(4), nn.Identity()
    for _ in range(5):
        play(replay, module, ran)
    assert ran == [module, module]


def test_when_all_graphs_are_forgotten_new_ones_have_memory_of_their_own(ran: list[nn.Module]) -> None:
    replay, old, new = CudaGraphCache(2), nn.Identity(), nn.Identity()
    play(replay, old, ran)
    play(replay, old, ran)
    for _ in range(3):
        play(replay, nn.Identity(), ran)
    assert DEAD
    play(replay, new, ran)
    play(replay, new, ran)


def test_a_module_that_takes_the_place_of_another_is_new(ran: list[nn.Module]) -> None:
    replay = CudaGraphCache(100)
    for _ in range(50):  # each would have the address of the one before, were that not kept
        play(replay, nn.Identity(), ran)
    assert len({id(module) for module in ran}) == len(replay._seen) == 50
    assert not LIVE
