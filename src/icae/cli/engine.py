"""The one place where commands reach the layers that need a model.

Every import here is inside a function, so that the command line starts at once and
`icae inspect` never loads torch. Tests replace these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from icae.decode.vllm.client import VllmAddress
    from icae.decode.vllm.runtime import VllmRuntime
    from icae.engine import Icae
    from icae.evals import Finished, Settings
    from icae.evals.judge_run import JudgeRun
    from icae.evals.suite import SuiteFinished, SuiteRun
    from icae.serve.bulk import Encoder

Stage = Literal["pretrain", "finetune"]


def open_engine(
    *, adapter: str | None, base: str | None, device: str | None, dtype: str | None
) -> Icae:
    """Load the base model and an adapter.

    Args:
        adapter: Adapter folder, or None for the default.
        base: Base model, or None for the adapter's.
        device: Torch device, or None for the best found.
        dtype: Precision of the base model, or None for the device's usual one.

    Raises:
        BaseModelError: If the base model cannot be loaded.
        AdapterError: If the adapter cannot be loaded.
    """
    from icae import engine as api

    return api.load(adapter, base=base, device=device, dtype=dtype)


def connect_engine(icae: Icae, server: VllmAddress, *, adapter: str | None) -> VllmRuntime:
    """Let a vLLM server answer for a loaded model.

    Args:
        icae: The model.
        server: The server.
        adapter: Adapter folder that was loaded, or None for the default.

    Raises:
        BaseModelError: If the server runs another model.
        MissingDependencyError: If its client is not installed.
        ServiceError: If it cannot be asked, or takes no embeds.
    """
    from icae import opening

    own = icae.provenance
    return opening.connect_vllm(server, adapter, base=own.base_model, dtype=own.slot_dtype)


def open_tokenizer(base: str) -> tuple[Any, str]:
    """Load the tokenizer of a base model, without its weights.

    Args:
        base: Base model: a name, a hub id or a folder.

    Returns:
        The tokenizer and its hash.

    Raises:
        BaseModelError: If it cannot be loaded.
    """
    from icae import model

    tokenizer = model.load_tokenizer(base)
    return tokenizer, model.tokenizer_hash(tokenizer)


def bulk_opener(
    *, adapter: str | None, base: str | None, device: str | None, dtype: str | None, threads: int
) -> Callable[[], Encoder]:
    """What loads the engine in a worker of a bulk run.

    Args:
        adapter: Adapter folder, or None for the default.
        base: Base model, or None for the adapter's.
        device: Torch device, or None for the best found.
        dtype: Precision of the base model, or None for the device's usual one.
        threads: CPU threads of a worker.
    """
    from icae.serve.bulk import EngineOpener

    return EngineOpener(adapter=adapter, base=base, device=device, dtype=dtype, threads=threads)


def run_evaluation(
    icae: Icae,
    texts: Sequence[Path],
    settings: Settings,
    *,
    folder: Path,
    command: str,
    replace: bool,
    on_progress: Callable[[int, int], None],
) -> Finished:
    """Run an experiment on a loaded model.

    Args:
        icae: The engine.
        texts: Held-out corpus files or folders.
        settings: The experiment.
        folder: Folder of the result files.
        command: The command line, for the record.
        replace: Replace a result of other settings there.
        on_progress: Called with (done, total).

    Raises:
        InputError: If texts or folder cannot be used.
        MissingDependencyError: If the evaluation packages are not installed.
    """
    from icae import evals as evaluation

    return evaluation.evaluate(
        icae,
        texts,
        settings,
        folder=folder,
        command=command,
        replace=replace,
        on_progress=on_progress,
    )


def run_judge(
    run: JudgeRun,
    *,
    api_key: str,
    folder: Path,
    command: str,
    on_progress: Callable[[int, int], None],
) -> Finished:
    """Ask a judge about two sets of answers.

    Args:
        run: What is judged, and by whom.
        api_key: Key of the service.
        folder: Folder of the result files.
        command: The command line, for the record.
        on_progress: Called with (requests done, requests in all).

    Raises:
        InputError: If no question is in both, or a file cannot be used.
        MissingDependencyError: If the packages that this needs are not installed.
    """
    from icae.evals.judge_client import OpenAiJudge
    from icae.evals.judge_run import judge_answers

    judge = OpenAiJudge(run.service, api_key)
    return judge_answers(run, judge, folder=folder, command=command, on_progress=on_progress)


def run_suite(
    icae: Icae,
    run: SuiteRun,
    *,
    folder: Path,
    command: str,
    replace: bool,
    on_part: Callable[[str], AbstractContextManager[Callable[[int, int], None]]],
) -> SuiteFinished:
    """Run every experiment on a loaded model and write the report.

    Args:
        icae: The engine.
        run: What is measured.
        folder: Folder of the report.
        command: The command line, for the record.
        replace: Replace results of other settings there.
        on_part: Called with the name of each experiment; gives its progress.

    Raises:
        ResultConflictError: If the folder holds results of another run.
    """
    from icae.evals import suite

    return suite.run_suite(
        icae, run, folder=folder, command=command, replace=replace, on_part=on_part
    )
