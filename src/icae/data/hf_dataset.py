"""Hugging Face datasets as text rows, streamed. Needs datasets (the ``data`` extra)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icae.errors import InputError, MissingDependencyError

PREFIX = "hf:"
_FORMS = "hf:OWNER/NAME[@REVISION][:CONFIG][:SPLIT] or hf:/FOLDER[:SPLIT]"


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Which dataset, written ``hf:...``.

    Attributes:
        name: Dataset on the hub (``owner/name``) or folder written by ``save_to_disk``.
        local: Whether it is a folder.
        revision: Commit, tag or branch on the hub, or None for the newest.
        config: Configuration, or None for the only one.
        split: Split to read.
    """

    name: str
    local: bool
    revision: str | None = None
    config: str | None = None
    split: str = "train"

    @property
    def source(self) -> str:
        """Short name for reports: the last part of the name."""
        return Path(self.name).name


def is_dataset(spec: Path | str) -> bool:
    """Whether a corpus path names a dataset (``hf:...``) and not a file."""
    return str(spec).startswith(PREFIX)


def parse_dataset(spec: Path | str) -> DatasetSpec:
    """Read a dataset spec.

    ``hf:owner/name``, ``hf:owner/name:config``, ``hf:owner/name:config:split``,
    ``hf:owner/name::split``, ``hf:owner/name@revision``; for a local folder (it starts with
    ``/``, ``.`` or ``~``) ``hf:/folder`` or ``hf:/folder:split``. The split is ``train`` if
    none is named.

    Args:
        spec: The text.

    Raises:
        InputError: If it has another form.
    """
    name, *options = str(spec).removeprefix(PREFIX).split(":")
    local = name.startswith(("/", ".", "~"))
    name, at, revision = (name, "", "") if local else name.partition("@")
    if not name or len(options) > 2 - local or (at and not revision):
        raise InputError("That is not a dataset.", got=str(spec), expected=_FORMS)
    config, split = ("", *options, "")[:2] if local else (*options, "", "")[:2]
    return DatasetSpec(
        name=str(Path(name).expanduser()) if local else name,
        local=local,
        revision=revision or None,
        config=config or None,
        split=split or "train",
    )


def read_dataset(spec: DatasetSpec) -> Iterator[tuple[str, str | None]]:
    """Stream the field ``text``, and ``title`` if there is one.

    Args:
        spec: The dataset. One from the hub is streamed, never downloaded as a whole; a
            folder is memory-mapped.

    Yields:
        ``(text, title or None)`` for each row that has text; a null is skipped.

    Raises:
        MissingDependencyError: If datasets is not installed.
        InputError: If the dataset cannot be opened or read, or has no field ``text``.
    """
    datasets = _datasets()
    try:
        for row in _open(datasets, spec):
            text, title = row.get("text", ...), row.get("title")
            if text is None:
                continue
            if not isinstance(text, str):
                raise _refused(spec, f"fields {', '.join(row)}", "a field 'text' with text")
            yield text, title if isinstance(title, str) else None
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise _refused(
            spec, " ".join(str(error).split())[:200] or type(error).__name__, _FORMS
        ) from error


def _open(datasets: Any, spec: DatasetSpec) -> Any:
    if not spec.local:
        return datasets.load_dataset(
            spec.name, spec.config, split=spec.split, revision=spec.revision, streaming=True
        )
    if not Path(spec.name).is_dir():
        raise FileNotFoundError(f"no folder {spec.name}")
    found = datasets.load_from_disk(spec.name)
    if not isinstance(found, datasets.DatasetDict):
        return found
    if spec.split not in found:
        raise _refused(spec, f"splits {', '.join(found)}", f"a split {spec.split!r}")
    return found[spec.split]


def _refused(spec: DatasetSpec, got: str, expected: str) -> InputError:
    return InputError(
        f"The dataset {spec.name} cannot be read.",
        got=got,
        expected=expected,
        fix="check name, configuration and split; the hub needs a network connection",
    )


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            "Hugging Face datasets need the package datasets.",
            got="datasets is not installed",
            expected="the extra 'data'",
            fix='pip install ".[data]" in the checkout, or pip install datasets',
        ) from error
    return datasets
