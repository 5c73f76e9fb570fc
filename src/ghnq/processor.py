"""Instruction sets of this processor that matter to integer kernels, as reported by the operating system."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_KNOWN = ("sse4_1", "avx2", "avx512bw", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "asimddp", "amx_int8"}


@dataclass(frozen=True)
class Processor:
    """A processor.

    Attributes:
        name: the model name.
        features: instruction sets that matter to integer kernels.
        dot_product: whether products of 8-bit integers are summed in 32 bits (VNNI or the like); None if unknown.
        x86: whether it is an x86 processor.
    """

    name: str
    features: tuple[str, ...]
    dot_product: bool | None
    x86: bool

    @property
    def saturates(self) -> bool | None:
        """Whether two products of uint8 and int8 are added in 16 bits, which can overflow: x86 without VNNI."""
        if not self.x86:
            return False
        return None if self.dot_product is None else not self.dot_product

    def line(self) -> str:
        """Returns name, features, and the accumulator of 8-bit products, in one readable line."""
        vnni = {True: "byte products summed in 32 bits (VNNI or the like)", False: "no VNNI", None: "VNNI unknown"}
        return f"{self.name}: {', '.join(self.features) or 'features unknown'}; {vnni[self.dot_product]}"


def this_processor() -> Processor:
    """Returns the processor this process runs on; features are known on Linux only."""
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    fields = _cpuinfo(Path("/proc/cpuinfo"))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Processor(
        name=fields.get("model name") or platform.processor() or platform.machine(),
        features=tuple(flag for flag in _KNOWN if flag in flags),
        dot_product=bool(_DOT_PRODUCTS & flags) if flags else None,
        x86=x86,
    )


def _cpuinfo(file: Path) -> dict[str, str]:
    """Returns the fields of the first core."""
    if not file.is_file():
        return {}
    lines = (line.partition(":") for line in file.read_text().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
