"""What the words of `ghnq rank` name: members of spaces, networks of the user's, specs, and lists of these.

A word that names nothing is a mistake in the command. What a word names and cannot be used (an item that is no module,
a line of a text file, a spec that is damaged) is a failure: it is listed with its reason, and the rest is ranked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ghnq import spaces
from ghnq.data.shuffle import permutation
from ghnq.errors import GhnqError, GraphError, SpaceError, nearest
from ghnq.memory import available_memory
from ghnq.models import collection_of, is_object, load_object
from ghnq.search.candidates import Candidate, Candidates, Failure, called_on_meta, reason_of
from ghnq.spaces.spec_file import read_spec_file

MAX_CANDIDATES = 10_000
"""A word that names more needs `--n`: it may be a generator that never ends."""
_FORMS = (
    "SPACE/SPLIT, SPACE/SPLIT/INDEX, FILE.py:NAME (a module, a function, or a list, dictionary or generator of these), "
    "SPEC.json, a directory of specs, or a text file of such words"
)
Found = Candidate | Failure


@dataclass(frozen=True)
class _Sampling:
    """How many candidates a word gives, at most, and which members of a split."""

    count: int | None
    seed: int


def read_candidates(words: Sequence[str], *, n: int | None = None, seed: int = 0) -> Candidates:
    """Returns the candidates that words name, in their order.

    Args:
        words: As `ghnq rank` takes them.
        n: Candidates of each word, at most: random members of a split, the first ones of everything else. None: all.
        seed: Decides which members of a split; `n` members are the first of any larger number.

    Raises:
        GhnqError: A word names nothing, two candidates have one name, or a word without `n` names too many.
    """
    if n is not None and n < 1:
        raise GhnqError(f"--n is {n}; give at least 1")
    sampling = _Sampling(n, seed)
    result = Candidates()
    origins: dict[str, str] = {}
    for word in words:
        for found in _limited(word, _named_by(word, sampling), sampling):
            if found.name in origins:
                raise GhnqError(
                    f"two candidates have the name '{found.name}' (of '{origins[found.name]}' and of '{word}'); name "
                    "each one once"
                )
            origins[found.name] = word
            if isinstance(found, Failure):
                result.failures.append(found)
            else:
                result.usable[found.name] = found
    return result


def _limited(word: str, found: Iterable[Found], sampling: _Sampling) -> Iterator[Found]:
    """Yields what a word names, up to the number asked for."""
    most = MAX_CANDIDATES if sampling.count is None else sampling.count
    held, room = 0, available_memory()
    for number, each in enumerate(found):
        if number == most:
            if sampling.count is None:
                raise GhnqError(
                    f"'{word}' names more than {most:,} candidates (a generator may never end); say how many are "
                    "wanted of it (--n)"
                )
            return
        if isinstance(each, Candidate) and isinstance(each.value, nn.Module):
            held += sum(tensor.nbytes for tensor in each.value.parameters() if not tensor.is_meta)
            if room is not None and held > room / 2:
                raise GhnqError(
                    f"the first {number + 1:,} modules of '{word}' take {held / 1e9:,.1f} GB, more than half of the "
                    "memory that is available; let it give functions that return a module, or take fewer (--n)"
                )
        yield each


def _named_by(word: str, sampling: _Sampling) -> Iterator[Found]:
    path, parts = Path(word), word.split("/")
    if is_object(word):
        return _objects(word)
    if parts[0] in spaces.names() and len(parts) == 2:
        return _members(word, sampling)
    if parts[0] in spaces.names() and len(parts) == 3:
        space, spec = spaces.resolve(word)
        return iter([Candidate(word, space=space.name, spec=spec)])
    if path.is_dir():
        return _specs(path)
    if path.suffix == ".json":
        return iter([_spec(word)])
    if _is_list_file(path):
        return _lines(path, sampling)
    raise GraphError(f"'{word}' names no candidates{_hint(word)}. A candidate is {_FORMS}.")


def _is_list_file(path: Path) -> bool:
    return path.is_file() and path.suffix not in (".py", ".json")


def _hint(word: str) -> str:
    path = Path(word)
    if path.suffix == ".py" and path.is_file():
        return f": it is a file; write {word}:NAME"
    if path.parent.is_dir():
        return nearest(path.name, [*(other.name for other in path.parent.iterdir()), *spaces.names()])
    return nearest(word.split("/")[0], spaces.names())


def _members(word: str, sampling: _Sampling) -> Iterator[Found]:
    """Yields members of a split: random ones, or all of it in order."""
    name, split = word.split("/")
    space = spaces.get(name)
    if split not in space.splits:
        raise SpaceError(
            f"there is no split '{split}' in '{name}'{nearest(split, space.splits)}; splits are "
            f"{', '.join(space.splits)}"
        )
    size = space.splits[split]
    if sampling.count is None and size > MAX_CANDIDATES:
        raise SpaceError(f"'{word}' has {size:,} members; say how many are wanted (--n)")
    order = range(size) if sampling.count is None else permutation(size, sampling.seed).tolist()
    return (Candidate(f"{word}/{index}", space=name, spec=space.spec(split, index)) for index in order)


def _objects(word: str) -> Iterator[Found]:
    """Yields what an object of the user's is, or the items that it has."""
    value = load_object(word)
    if isinstance(value, type) or isinstance(called_on_meta(value), nn.Module):
        return iter([_usable(word, value)])
    try:
        items = collection_of(value, word)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return iter([Failure(word, reason_of(error))])
    if items is None:
        return iter([_usable(word, value)])
    return _items(word, items)


def _items(word: str, items: Iterator[tuple[str, object]]) -> Iterator[Found]:
    for number in itertools.count():
        try:
            key, value = next(items)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - a generator that has raised gives nothing more
            yield Failure(f"{word}[{number}]", reason_of(error))
            return
        yield _usable(f"{word}[{key}]", value)


def _usable(name: str, value: object) -> Found:
    if isinstance(value, nn.Module) or callable(value):
        return Candidate(name, value=value)
    return Failure(name, f"is of type {type(value).__name__}; it must be an nn.Module, or return one when it is called")


def _specs(folder: Path) -> Iterator[Found]:
    files = sorted(folder.glob("*.json"))
    if not files:
        raise SpaceError(f"'{folder}' holds no spec (*.json)")
    return (_attempt(str(file), _spec) for file in files)


def _spec(word: str) -> Candidate:
    space, spec = read_spec_file(Path(word))
    return Candidate(word, space=space.name, spec=spec)


def _attempt(word: str, read: Callable[[str], Found]) -> Found:
    try:
        return read(word)
    except GhnqError as error:
        return Failure(word, reason_of(error))


def _lines(file: Path, sampling: _Sampling) -> Iterator[Found]:
    """Yields what the lines of a text file name; empty lines and what follows a `#` are left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(f"'{file}' is not a text file ({error}). A candidate is {_FORMS}.") from error
    words = [line.split("#")[0].strip() for line in text.splitlines()]
    if not any(words):
        raise GraphError(f"'{file}' has no line that names a candidate")
    for word in filter(None, words):
        if _is_list_file(Path(word)):
            yield Failure(word, f"is a list of words in the list '{file}'; name it on the command line")
            continue
        try:
            yield from _named_by(word, sampling)
        except Exception as error:  # noqa: BLE001 - importing a file of the user's may raise anything
            yield Failure(word, reason_of(error))
