"""Reading the small files of a model folder: bounded, plain JSON, and never a pickle."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.config import MIB
from pipeline.errors import CheckpointError
from pipeline.settings import shown

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MERGE_FIRST = (
    "an adapter, not a model: merge the adapter first (peft's merge_and_unload, then "
    "save_pretrained into a folder without it)"
)
MAX_JSON_BYTES = 128 * MIB  # the largest in use is tokenizer.json, 7 to 11 MiB


class HubFields(BaseModel):
    """Fields read from a file of the hub: wrong types are refused, unknown fields are not ours."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


Fields = TypeVar("Fields", bound=HubFields)


def require_folder(path: Path) -> Path:
    """`path`, if it is a folder with a model; what was trained beside one is refused by name."""
    if not path.is_dir():
        raise CheckpointError(str(path), "not a model folder")
    for name in ADAPTER_FILES:
        if (path / name).exists():
            raise CheckpointError(name, MERGE_FIRST)
    return path


def read_text(folder: Path, name: str) -> str:
    """A whole UTF-8 file of the folder; CheckpointError if missing, too large or not text."""
    file = require_folder(folder) / name
    if not file.is_file():
        raise CheckpointError(name, "missing, or not a regular file")
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise CheckpointError(name, f"larger than {MAX_JSON_BYTES} bytes")
        return content.decode()
    except UnicodeDecodeError:
        raise CheckpointError(name, "not UTF-8 text") from None
    except OSError as error:
        raise CheckpointError(name, f"can't be read: {error.strerror}") from None


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the folder."""
    return parse_object(name, read_text(folder, name))


def read_optional_json(folder: Path, name: str) -> dict[str, Any]:
    """Like `read_json`; empty when there is no such file."""
    return read_json(folder, name) if (folder / name).exists() else {}


def parse_object(name: str, text: str | bytes) -> dict[str, Any]:
    """A JSON object; `name` is only for the error."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise CheckpointError(name, "JSON nested too deep") from None
    except ValueError as error:
        raise CheckpointError(name, f"not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(name, f"must hold a JSON object, got {shown(content)}")
    return content


def without_nulls(content: Any) -> Any:
    """`content` without the fields that are null, below too: their default is meant by it."""
    if not isinstance(content, dict):
        return content
    return {name: without_nulls(value) for name, value in content.items() if value is not None}


def parse_fields(
    kind: type[Fields], name: str, content: Any, *, tensor: str | None = None
) -> Fields:
    """`content` as `kind`; a CheckpointError names the first field that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in first["loc"]) or "the object"
        raise CheckpointError(name, f"{field}: {first['msg']}", tensor=tensor) from None
