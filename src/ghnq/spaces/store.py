"""Members of a space as a parquet table: for caches, and for readers without ghnq."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ghnq.errors import SpaceError
from ghnq.files import atomic_path
from ghnq.spaces import convnets

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("structure_hash", pa.string()),
        ("parameters", pa.int64()),
        ("multiply_adds", pa.int64()),
        ("spec", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Member:
    """A row: its place in the space and its spec; parameters and multiply_adds at 3x32x32 with 10 classes."""

    split: str
    index: int
    structure_hash: str
    parameters: int
    multiply_adds: int
    spec: convnets.Spec


def members(split: str, indices: Iterable[int]) -> list[Member]:
    """Draws members of a split. Raises SpaceError as `convnets.spec` does."""
    rows = []
    for index in indices:
        spec = convnets.spec(split, index)
        price = convnets.cost(spec)
        rows.append(Member(split, index, spec.structure_hash, price.parameters, price.multiply_adds, spec))
    return rows


def write(path: str | os.PathLike[str], rows: Iterable[Member]) -> None:
    """Writes rows, whole or not at all."""
    records = [{**{name: getattr(row, name) for name in SCHEMA.names}, "spec": row.spec.to_json()} for row in rows]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), temporary)


def read(path: str | os.PathLike[str]) -> list[Member]:
    """Reads rows. Raises SpaceError for a missing file, another table, or a hash that is not its spec's."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise SpaceError(f"{os.fspath(path)} cannot be read as a parquet table of architectures: {error}") from error
    if table.schema.names != SCHEMA.names:
        raise SpaceError(f"{os.fspath(path)} has the columns {table.schema.names}, needed are {SCHEMA.names}")
    rows = [Member(**{**record, "spec": convnets.Spec.from_json(record["spec"])}) for record in table.to_pylist()]
    for row in rows:
        if row.spec.structure_hash != row.structure_hash:
            raise SpaceError(f"{os.fspath(path)}: the spec of {row.split}/{row.index} does not have the hash beside it")
    return rows
