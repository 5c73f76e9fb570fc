"""MODEL in words: found where it is, else refused with the nearest name; the faults of user code are never hidden."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ghnq.errors import GhnqWarning, GraphError, SpaceError
from ghnq.models import load_model

SOURCE = """
from torch import nn
from helper_beside import WIDTH

class Net(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

class Zoo:
    @staticmethod
    def small():
        return Net(4)

class NeedsWidth(nn.Module):
    def __init__(self, width):
        super().__init__()

net = Net(5)
number = 7

def build():
    return Net(6)

def parallel():
    return nn.DataParallel(Net(6))

def needs_width(width):
    return Net(width)

def returns_number():
    return 7

def broken():
    raise TypeError("my own mistake")
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file with models, beside a helper it imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper_beside.py").write_text("WIDTH = 3\n")
    file = tmp_path / "nets.py"
    file.write_text(SOURCE)
    return file


@pytest.mark.parametrize(("name", "width"), [("Net", 3), ("net", 5), ("build", 6), ("Zoo.small", 4)])
def test_file_and_name(nets: Path, name: str, width: int) -> None:
    module = load_model(f"{nets}:{name}")
    assert module.get_submodule("conv").get_parameter("weight").shape == (width, 3, 3, 3)


def test_a_class_of_transformers_gets_its_default_configuration() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        made = load_model("transformers:MobileNetV1ForImageClassification")
    assert isinstance(made, transformers.MobileNetV1ForImageClassification)


def test_wrappers_are_left_out(nets: Path) -> None:
    with pytest.warns(GhnqWarning, match=r"without its wrappers \(DataParallel\)"):
        assert list(load_model(f"{nets}:parallel").state_dict()) == ["conv.weight", "conv.bias"]


def test_package_and_name(nets: Path) -> None:
    package = nets.parent / "my_package_of_nets"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("import torch\nmodel = torch.nn.Linear(2, 3)\n")
    assert isinstance(load_model("my_package_of_nets.inner:model"), nn.Linear)
    assert isinstance(load_model("torch.nn:Flatten"), nn.Flatten)


def test_member_of_the_space_takes_no_memory_and_fits_the_images() -> None:
    module = load_model("convnets/test/3", input_shape=(1, 8, 8), num_classes=7)
    parameters = list(module.parameters())
    assert all(parameter.is_meta for parameter in parameters)
    assert parameters[0].shape[1] == 1
    assert module(torch.empty(2, 1, 8, 8, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nets.py:Nett", "did you mean 'Net'"),
        ("nets.py:Zoo.smal", "did you mean 'small'"),
        ("netz.py:Net", "did you mean 'nets.py'"),
        ("nowhere/nets.py:Net", "no file 'nowhere/nets.py'"),
        ("nets.py", "the file defines: Net, Zoo, NeedsWidth, build"),
        ("nets.py:", "not a model"),
        (":Net", "not a model"),
        ("", "not a model"),
        ("nets.py:number", "of type int"),
        ("nets.py:NeedsWidth", "cannot be called without arguments"),
        ("nets.py:needs_width", "'width'"),
        ("nets.py:returns_number", "returned int"),
        ("no_such_package.nets:Net", "no Python module 'no_such_package'"),
        ("torch.nnn:Net", "no Python module 'torch.nnn'"),
        ("some/nets:Net", "neither a file"),
        ("./nets:Net", "did you mean './nets.py'"),
        ("convnets/test", "not a model"),
    ],
)
def test_mistakes_are_named(nets: Path, reference: str, words: str) -> None:
    with pytest.raises(GraphError) as caught:
        load_model(reference)
    assert words in str(caught.value)


@pytest.mark.parametrize("reference", ["convnet/test/1", "convnets/tset/1", "convnets/test/x", "convnets/test/500"])
def test_wrong_members_are_named_by_the_space(reference: str) -> None:
    with pytest.raises(SpaceError):
        load_model(reference)


def test_user_exceptions_pass_through(nets: Path) -> None:
    with pytest.raises(TypeError, match="my own mistake"):
        load_model(f"{nets}:broken")
    (nets.parent / "raises.py").write_text("raise ZeroDivisionError('at import')")
    with pytest.raises(ZeroDivisionError, match="at import"):
        load_model(f"{nets.parent / 'raises.py'}:Net")


def test_missing_import_inside_user_code_is_the_users(nets: Path) -> None:
    (nets.parent / "imports_nothing.py").write_text("import no_such_library\nclass Net: ...\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_model("imports_nothing:Net")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_model("imports_nothing.py:Net")


@pytest.mark.parametrize("reference", ["script.py:Net", "script:Net"])
def test_a_script_that_ends_itself_does_not_end_us(nets: Path, reference: str) -> None:
    (nets.parent / "script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(GraphError, match="__main__"):
        load_model(reference)


def test_user_file_replaces_no_loaded_module(nets: Path) -> None:
    (nets.parent / "json.py").write_text("from torch import nn\nmodel = nn.Linear(1, 1)\n")
    before = sys.modules["json"]
    assert isinstance(load_model("json.py:model"), nn.Linear)
    assert sys.modules["json"] is before
