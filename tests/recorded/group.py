"""Runs the cases of a group in a folder, each command in a forked process."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import gc
import importlib
import importlib.metadata
import io
import json
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.recorded import outputs
from tests.recorded.server import Case, Server, record, wait

MESSAGES = 12
Stamps = dict[Path, tuple[int, int]]


@functools.cache
def command() -> Callable[[], None]:
    """What the `icae` script calls."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="icae")
    main: Callable[[], None] = script.load()
    return main


def run_command(arguments: list[str]) -> None:
    """What the `icae` script does with some arguments."""
    sys.argv = ["icae", *arguments]
    command()()


def warm_up() -> None:
    """Import all that commands import, once, so that each forked command starts at once."""
    for name in ("accelerate", "peft", "transformers", "torch", "matplotlib.pyplot", "pyarrow"):
        importlib.import_module(name)
    package = importlib.import_module("icae")
    absent = (ImportError, importlib.import_module("icae.errors").MissingDependencyError)
    for module in pkgutil.walk_packages(package.__path__, "icae."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(*absent):
                importlib.import_module(module.name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        run_command(["--help"])
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that a forked process shares these objects and does not copy them


def fork(work: Callable[[], object], folder: Path, stdin: bytes, env: dict[str, str]) -> int:
    """Do some work in a process of its own that reads and writes files beside the folder."""
    side = folder.parent / f"{folder.name}.io"
    side.mkdir(exist_ok=True)
    for number in range(3):
        (side / str(number)).write_bytes(b"" if number else stdin)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.chdir(folder)
        os.environ.update(env)
        for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
            os.dup2(os.open(side / str(number), mode), number)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Group:
    """The cases of one group, run in order in one folder."""

    def __init__(self, folder: Path, values: dict[str, str]) -> None:
        self.folder = folder
        self.values = dict(values)
        self.hide = {values["stub"]: "<stub>", str(folder): "<folder>"}
        self.mask: list[str] = []
        self.server: Server | None = None

    def filled(self, text: str) -> str:
        """A text with its placeholders, such as {model}, filled in."""
        return re.sub(r"\{(\w+)\}", lambda m: self.values.get(m[1], m[0]), text)

    def output(self, number: int) -> str:
        """What the last command wrote: 1 its results, 2 its messages."""
        path = self.folder.parent / f"{self.folder.name}.io" / str(number)
        text = path.read_text(errors="replace")
        for pattern in self.mask:
            text = re.sub(pattern, "<masked>", text)
        return text

    def run(self, case: Case) -> Any:
        """What comes of one case."""
        self.mask = case.get("mask", [])
        if "do" in case:
            return self.do(*case["do"].split())
        if "http" in case:
            assert self.server is not None
            response, data = self.server.ask(case, self.filled)
            self.save(case, data)
            kept = record(response, data, self.hide)
            if case.get("count"):
                kept["body"] = {key: len(kept["body"]["data"]) for key in ("data",)}
            return kept
        if "serve" in case:
            pid = self.start(case, shlex.split(self.filled(case["serve"])))
            messages = self.folder.parent / f"{self.folder.name}.io" / "2"
            self.server = Server(pid, messages, self.folder)
            return self.printed(as_json=False)
        return self.finished(case)

    def start(self, case: Case, arguments: list[str]) -> int:
        """Run a command, or a program, in a process of its own."""
        stdin = self.filled(case.get("stdin", "")).encode()
        program = case.get("python")
        if program:
            return fork(lambda: runpy.run_path(program), self.folder, stdin, {})
        return fork(lambda: run_command(arguments), self.folder, stdin, case.get("env", {}))

    def finished(self, case: Case) -> Any:
        """Run a command to its end: what it printed, and the files it wrote."""
        arguments = shlex.split(self.filled(case.get("run", "")))
        before = self.stamps()
        code = wait(self.start(case, arguments))
        if "Usage:" in self.output(1):
            return {"code": code, **outputs.help_options(self.output(1))}
        kept = {"code": code, **self.printed(as_json="--json" in arguments or "python" in case)}
        self.save(case, self.output(1))
        for name in case.get("secret", ()):
            kept["out"][name] = "<secret>"
        written = self.written(before, case.get("skip", "\0"))
        printed = kept["out"] if isinstance(kept["out"], dict) else {}
        for name, content in written.items():
            if printed and isinstance(content, dict) and content == printed | content:
                written[name] = "as printed"
        kept |= {"files": written} if written else {}
        return outputs.shape(kept) if case.get("shape") else kept

    def save(self, case: Case, text: str | bytes) -> None:
        """Keep values of the JSON that came out, for the placeholders of later cases."""
        for name, key in case.get("save", {}).items():
            self.values[name] = json.loads(text)[key]

    def do(self, what: str, *names: str) -> Any:
        """What no command does: end the server, remove, copy or damage a file."""
        if what == "stop":
            server, self.server = self.server, None
            return {"code": server and server.stop(), **self.printed(as_json=False)}
        path = self.folder / names[0]
        if what == "remove":
            path.unlink()
        elif what == "copy":
            shutil.copy(path, self.folder / names[1])
        elif what == "cut":
            path.write_bytes(path.read_bytes()[:-9])
        return {}

    def printed(self, *, as_json: bool) -> dict[str, Any]:
        """Results as JSON or as lines, and the last messages."""
        out, messages = self.output(1), outputs.lines(self.output(2), self.hide)
        kept: dict[str, Any] = {"out": outputs.lines(out, self.hide)}
        if as_json and out.strip():
            try:
                kept["out"] = outputs.clean(json.loads(out), self.hide)
            except json.JSONDecodeError:
                kept["out"].insert(0, "NOT JSON")
        kept["messages"] = messages[-MESSAGES:]
        return kept

    def stamps(self) -> Stamps:
        """When each file was written."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}

    def written(self, before: Stamps, skip: str) -> dict[str, Any]:
        """The files that are new, changed or gone."""
        after = self.stamps()
        kept: dict[str, Any] = {}
        for path in sorted(path for path in after if after[path] != before.get(path)):
            name = re.sub(r"tfevents\..*", "tfevents", str(path.relative_to(self.folder)))
            if not fnmatch.fnmatch(name, skip):
                kept[name] = outputs.file_record(path, self.hide)
        gone = (str(path.relative_to(self.folder)) for path in before if path not in after)
        return kept | dict.fromkeys(sorted(gone), "gone")

    def end(self) -> None:
        """End a server that still runs."""
        if self.server is not None:
            self.server.stop()
