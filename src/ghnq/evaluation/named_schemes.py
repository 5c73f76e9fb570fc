"""The schemes of an evaluation, by the names that they have in the results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ghnq.errors import GhnqError
from ghnq.quant import QuantScheme, dump_scheme, is_scheme_file, read_scheme

DEFAULT_SCHEMES = ("float32", "w8a8", "w4a8", "w4a4")


def name_schemes(schemes: Sequence[str], protocol: str | None, steps: tuple[str, ...]) -> dict[str, QuantScheme]:
    """Returns the schemes by name, each once.

    A scheme given as text is its own name. A scheme file is named after itself and a hash of its content, so that rows
    of an earlier content of the same file are not taken for rows of the present one.

    Args:
        schemes: Text such as `w4a8`, or paths of scheme files.
        protocol: Of schemes given as text; None is `deploy`.
        steps: Post-training steps of schemes given as text.

    Raises:
        GhnqError: There is no scheme.
        SchemeError: A scheme does not exist, or a file contradicts `protocol` or `steps`.
    """
    if not schemes:
        raise GhnqError(f"No scheme to evaluate; give some of {', '.join(DEFAULT_SCHEMES)}.")
    named = {}
    for text in schemes:
        scheme = read_scheme(text, protocol=protocol, steps=steps or None)
        if is_scheme_file(text):
            named[f"{Path(text).stem}@{hashlib.sha256(dump_scheme(scheme).encode()).hexdigest()[:8]}"] = scheme
        else:
            named[str(scheme)] = scheme
    return named


def describe_schemes(named: Mapping[str, QuantScheme]) -> dict[str, object]:
    """Returns what the summary says about the schemes.

    That is `protocol` and `steps` of the schemes that quantize; `settings`, which has them for each scheme, where they
    differ; and `scheme_files`, the content of schemes that are not named by their text.
    """
    quantizing = {name: scheme for name, scheme in named.items() if not scheme.is_float} or dict(named)
    settings = {name: " + ".join((scheme.protocol, *scheme.steps)) for name, scheme in quantizing.items()}
    steps = {scheme.steps for scheme in quantizing.values()}
    shared_steps = steps.pop() if len(steps) == 1 else ()
    from_files = {name: dump_scheme(scheme) for name, scheme in named.items() if name != str(scheme)}
    return {
        "protocol": ", ".join(dict.fromkeys(scheme.protocol for scheme in quantizing.values())),
        **({"steps": list(shared_steps)} if shared_steps else {}),
        **({"settings": settings} if len(set(settings.values())) > 1 else {}),
        **({"scheme_files": from_files} if from_files else {}),
    }
