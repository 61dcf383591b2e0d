"""The output folder of a data build: claimed by one build, continued only by the same one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import filelock

from icae.config.parsing import from_dict
from icae.data.build_inputs import Identity
from icae.data.build_report import BuildReport, markdown
from icae.errors import ConfigError, InputError

SIDES = ("train", "validation")


def finished_report(folder: Path, identity: Identity) -> BuildReport | None:
    """The report of this build if the folder holds it complete, else None.

    What is left of its working folder is removed.

    Args:
        folder: Output folder.
        identity: The build.

    Raises:
        InputError: If the folder holds the result of another build.
    """
    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        report = from_dict(BuildReport, json.loads(path.read_text("utf-8")), where=str(path))
    except (OSError, ValueError, ConfigError) as error:
        raise _occupied(folder, "its report.json is not that of a build") from error
    _refuse_difference(folder, report.identity, identity)
    if not (folder / "train").is_dir():
        return None
    shutil.rmtree(folder / "work", ignore_errors=True)
    return report


@contextmanager
def claimed(folder: Path, identity: Identity) -> Iterator[Path]:
    """Make a folder that of this build, or go on in it, while no other process does.

    Args:
        folder: Output folder: new, empty, or left by this build.
        identity: The build.

    Yields:
        The working folder in it.

    Raises:
        InputError: If the folder is in use by something else, by another build or by
            another process.
    """
    work = folder / "work"
    foreign = not (work / "build.json").exists() and _holds_files(folder)
    if foreign:
        raise _occupied(folder, "it holds other files")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock", timeout=0):
            _sign(folder, work / "build.json", identity)
            _remove_half_written(work)
            yield work
    except filelock.Timeout as error:
        raise _occupied(folder, "another process is building in it") from error


def save_report(report: BuildReport, folder: Path) -> None:
    """Write ``report.md``, then ``report.json``, which marks the build as complete.

    Args:
        report: The report.
        folder: Output folder.
    """
    _write(folder / "report.md", markdown(report))
    _write(folder / "report.json", json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n")


def _holds_files(folder: Path) -> bool:
    """Whether anything but a working folder without a claim is there."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        return True
    ours = {folder / "work", folder / "work" / "lock", folder / "work" / ".build.json.partial"}
    return any(path not in ours for path in folder.rglob("*"))


def _sign(folder: Path, claim: Path, identity: Identity) -> None:
    if not claim.exists():
        _write(claim, json.dumps(asdict(identity)))
        return
    try:
        found = from_dict(Identity, json.loads(claim.read_text("utf-8")), where=str(claim))
    except (OSError, ValueError, ConfigError) as error:
        raise _occupied(folder, f"{claim} is not that of a build") from error
    _refuse_difference(folder, found, identity)


def _remove_half_written(work: Path) -> None:
    for side in SIDES:
        shutil.rmtree(work / side, ignore_errors=True)
        for partial in work.glob(f".{side}.partial-*"):
            shutil.rmtree(partial, ignore_errors=True)


def _refuse_difference(folder: Path, found: Identity, wanted: Identity) -> None:
    difference = wanted.difference(found)
    if difference is not None:
        raise InputError(
            "The output folder holds another build.",
            got=f"{folder}: made with {difference}",
            expected="the same configuration, tokenizer and inputs, to go on or to reuse it",
            fix="choose another folder, or remove that one to start over",
        )


def _occupied(folder: Path, got: str) -> InputError:
    return InputError(
        "The output folder is in use.",
        got=f"{folder}: {got}",
        expected="a new or empty folder, or that of the same build",
        fix="choose another folder",
    )


def _write(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
