"""`icae store add`: documents and memory files into a store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console, engine
from icae.cli.compress import Ratio
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported
from icae.cli.progress import eta_progress
from icae.cli.refinement import (
    DEFAULT_TARGET,
    Budget,
    MinFidelity,
    PolicyRatios,
    Prefer,
    RefineSteps,
    check_measuring,
    make_policy,
    parse_ratios,
    policy_settings,
)
from icae.cli.store_options import KEY_DIGITS, StorePath, added_payload
from icae.config.spans import check_ratio

if TYPE_CHECKING:
    from icae.compression.adaptive import FidelityPolicy
    from icae.compression.refinement import RefineConfig
    from icae.engine import Icae
    from icae.store import Added, MemoryStore

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Documents to compress and memory files (.icae); - reads standard input.",
    ),
]

Name = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="Name in the store.", show_default="the path as given"
    ),
]


@reported
def add(
    files: Files,
    store: StorePath,
    name: Name = None,
    ratio: Ratio = 4.0,
    min_fidelity: MinFidelity = None,
    budget: Budget = None,
    ratios: PolicyRatios = None,
    prefer: Prefer = "size",
    refine: RefineSteps = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip measuring the fidelity of each span.")
    ] = False,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> Outcome:
    """Add documents to a store, which is made if there is none.

    A document that is there already, compressed alike by the same adapter, is not
    compressed again. Each file is safe in the store before the next one is read.
    """
    names = _names(files, name)
    check_ratio(ratio)
    ladder = parse_ratios(ratios)
    check_measuring(no_verify, min_fidelity, budget, refine)
    from icae.store import create_store

    start = time.perf_counter()
    added: list[Added] = []
    adding = _Adding(
        ratio=ratio,
        verify=not no_verify,
        policy=lambda icae: make_policy(
            min_fidelity=min_fidelity,
            budget=budget,
            ratios=ladder or icae.info.ratios,
            prefer=prefer,
            steps=refine,
        ),
        refine=refine,
        load=lambda: engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype),
    )
    with create_store(store) as opened:
        for file, own_name in zip(files, names, strict=True):
            added.append(adding.add(opened, file, own_name))
            if not as_json:
                console.write_text(_line(added[-1]))
    payload = {
        "store": store,
        "added": [added_payload(one) for one in added],
        "seconds": round(time.perf_counter() - start, 3),
    }
    return Outcome(payload=payload)


@dataclass
class _Adding:
    """Adds files one by one; the model is loaded for the first document.

    Attributes:
        ratio: Context tokens per slot.
        verify: Whether fidelity is measured.
        policy: The policy that the options ask for, given the model; or None.
        refine: Most refinement steps without a policy, or None.
        load: Loads the model.
        loaded: The model, once it was needed.
    """

    ratio: float
    verify: bool
    policy: Callable[[Icae], FidelityPolicy | None]
    refine: int | None
    load: Callable[[], Icae]
    loaded: list[Icae] = field(default_factory=list)

    def add(self, store: MemoryStore, file: str, name: str) -> Added:
        """Add one file."""
        if Path(file).suffix == ".icae":
            from icae.memory import Memory
            from icae.store import NewMemory

            return store.add([NewMemory(name=name, memory=Memory.load(file))])[0]
        return self._add_document(store, file, name)

    def _add_document(self, store: MemoryStore, file: str, name: str) -> Added:
        """Compress a document, unless the store has the result."""
        from icae.data.documents import read_document
        from icae.store import NewMemory, compressor_settings, memory_key

        document = read_document(file)
        icae = self._engine()
        policy = self.policy(icae)
        refine = None if policy is not None else self._refine_config()
        settings = {
            **(compressor_settings(ratio=self.ratio, verify=self.verify) if not policy else {}),
            **policy_settings(policy, refine),
        }
        digest = hashlib.sha256(document.text.encode()).hexdigest()
        linked = store.link(memory_key(digest, icae.provenance, settings), name=name)
        if linked is not None:
            return linked
        with eta_progress(f"Compressing {console.preview(name)}") as on_progress:
            memory = icae.compress(
                document.text,
                ratio=self.ratio,
                name=document.name,
                verify=self.verify,
                policy=policy,
                on_progress=on_progress,
            )
            if refine is not None:
                for better in icae.refine(memory, refine, on_step=on_progress):
                    memory = better
        return store.add([NewMemory(name=name, memory=memory, settings=settings)])[0]

    def _refine_config(self) -> RefineConfig | None:
        """How the slots of weak spans are refined without a policy."""
        if self.refine is None:
            return None
        from icae.compression.refinement import RefineConfig

        return RefineConfig(steps=self.refine, target=DEFAULT_TARGET)

    def _engine(self) -> Icae:
        if not self.loaded:
            with console.status("Loading the model"):
                self.loaded.append(self.load())
        return self.loaded[0]


def _names(files: Sequence[str], name: str | None) -> list[str]:
    """The name of each file in the store."""
    if name is not None and len(files) > 1:
        raise typer.BadParameter(
            f"one name cannot stand for {len(files)} files.", param_hint="--name"
        )
    if name is None and "-" in files:
        raise typer.BadParameter("standard input needs a name.", param_hint="--name")
    names = [Path(file).as_posix() for file in files] if name is None else [name]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise typer.BadParameter(f"given twice: {', '.join(twice)}.", param_hint="FILE")
    return names


def _line(added: Added) -> str:
    """One line about a file that was added."""
    how = "added" if added.new else "was there already"
    moved = "" if added.replaced is None else f"; was {added.replaced[:KEY_DIGITS]} before"
    return f"{added.key[:KEY_DIGITS]}  {console.preview(added.name, width=96)}  {how}{moved}\n"
