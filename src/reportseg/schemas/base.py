"""What all files have in common: strict, frozen, without NaN; written in one canonical form, and read within a budget."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import place
from ..errors import InputError
from ..limits import atomic_write, check_file

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 100

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Windows = dict[str, tuple[float, Positive]]
"""Name of an organ, or default -> centre and width of its window in Hounsfield units."""
Interval = tuple[float, float]
Difference = tuple[float, float, float]

M = TypeVar("M", bound=BaseModel)


class File(BaseModel):
    """What all of them share: frozen, no unknown key, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=True)


def to_json(model: BaseModel) -> str:
    """The canonical form: sorted keys, indent 1, UTF-8, newline at the end. ValueError for NaN: write None instead."""
    return json.dumps(model.model_dump(by_alias=True), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, model: BaseModel) -> None:
    """Writes the canonical form atomically."""
    atomic_write(path, to_json(model))


def read_json(path: str | Path, model: type[M]) -> M:
    """The file as a `model`. InputError naming file and key: bad_json, too_deep, too_large_file, bad_field, or those of check_file."""
    return parse(load_json(path), model, path)


def load_json(path: str | Path) -> Any:
    """The file as plain data, within 64 MiB and 100 levels; for files whose version is to be looked at first.

    InputError: too_large_file, too_deep, bad_json, those of check_file.
    """
    file = check_file(path)
    if file.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"the file is larger than {MAX_JSON_BYTES >> 20} MiB", path, "Is it the right file?", "too_large_file")
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError as e:
        raise _too_deep(path) from e
    except (ValueError, OSError) as e:
        raise InputError(f"not valid JSON: {e}", path, "Restore the file or write it anew.", "bad_json") from e
    level: list[Any] = [data]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return data
    raise _too_deep(path)


def parse(data: Any, model: type[M], where: str | Path = "") -> M:
    """Plain data as a `model`; InputError bad_field lists what is wrong with each key, at most 20."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        problems = [_problem(error, model) for error in e.errors(include_url=False)]
    more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
    raise InputError("; ".join(problems[:20]) + more, where, "See `reportseg config schema` for the fields.", "bad_field")


def _problem(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(map(str, error["loc"])) or "the whole file"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), place(error, model)[1], n=1)
        return f"{key}: unknown key" + (f" (did you mean {near[0]}?)" if near else "")
    return f"{key}: {error['msg']}"


def _children(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows; use null")


def _too_deep(path: str | Path) -> InputError:
    return InputError(f"nested more than {MAX_JSON_DEPTH} levels deep", path, "Is it the right file?", "too_deep")
