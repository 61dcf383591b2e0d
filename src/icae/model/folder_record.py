"""The JSON file that says what the folder of a trained model is; read without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from icae.config.parsing import from_dict, to_dict
from icae.errors import AdapterError, ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainedInfo:
    """What the record of any trained model says.

    Attributes:
        name: Name of the model.
        base_model: Base model that it was trained on.
        base_hash: Weight hash of that base (`icae.model.base.weight_hash`).
        tokenizer_hash: Hash of its tokenizer.
        recipe: The recipe of the run, as plain data.
        data: Sources of the training data and their sizes.
        commit: Commit of the code that trained it, or "".
        metrics: Measured figures by name.
    """

    name: str
    base_model: str
    base_hash: str
    tokenizer_hash: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecordFormat:
    """A kind of record.

    Attributes:
        name: What its field ``format`` says.
        version: The version that is written and read.
        file: Name of the file.
        what: What the folder holds, with its article, for error messages.
    """

    name: str
    version: int
    file: str
    what: str

    def write(self, folder: Path, info: TrainedInfo) -> None:
        """Write the record of a folder; one that is there is replaced.

        Args:
            folder: The folder.
            info: What is recorded.
        """
        record = {"format": self.name, "version": self.version, **to_dict(info)}
        text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / self.file).write_text(text + "\n", encoding="utf-8")

    def read(self, kind: type[T], folder: Path, *, missing: Callable[[OSError], AdapterError]) -> T:
        """Read the record of a folder, strictly.

        Args:
            kind: The dataclass that was recorded.
            folder: The folder.
            missing: Makes the error for a folder without such a file.

        Raises:
            AdapterError: If the file is missing or damaged, of another kind or version, or
                does not fit the dataclass.
        """
        path = folder / self.file
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise missing(error) from error
        except ValueError as error:
            raise AdapterError(f"{path} is damaged.", got=str(error), expected="JSON") from error
        if not isinstance(record, dict) or record.pop("format", None) != self.name:
            raise AdapterError(f"{path} is not {self.what}.", expected=f'"format": "{self.name}"')
        version = record.pop("version", None)
        if version != self.version:
            raise AdapterError(
                f"{path} has another format version.",
                got=str(version),
                expected=str(self.version),
            )
        try:
            return from_dict(kind, record, where=str(path))
        except ConfigError as error:
            raise AdapterError(
                error.message, got=error.got, expected=error.expected, fix=error.fix
            ) from error
