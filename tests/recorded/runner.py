"""Runs the commands of `cases.toml` on tiny models and compares what they put out.

``python -m tests.recorded.runner --check [--only PATTERN]`` from the root of the repository, with
the Python in which the icae to check is installed. One group: ``--only http``. Two minutes of
one core. A change that is wanted is kept with ``--write --only GROUP``: look at its diff in git.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXPECTED = HERE / "expected"
ENVIRONMENT = {
    "COLUMNS": "300",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENAI_API_KEY": "none",
    "TQDM_DISABLE": "1",
    "MPLBACKEND": "agg",
}


def run_group(name: str, cases: list[Any], folder: Path, values: dict[str, str]) -> Any:
    """The record of each case of a group, by what it runs."""
    from tests.recorded.group import Group

    group = Group(folder, values)
    records: dict[str, Any] = {}
    start = time.perf_counter()
    for case in cases:
        title = next(
            f"{key} {case[key]}" for key in ("run", "python", "serve", "http", "do") if key in case
        )
        title = case.get("name") or title.removeprefix("run ")
        assert title not in records, f"{title} stands in {name} twice"
        try:
            records[title] = group.run(case)
        except Exception as error:
            records[title] = {"the case could not be run": f"{type(error).__name__}: {error}"}
    group.end()
    seconds = time.perf_counter() - start
    print(f"{name}: {len(cases)} cases, {seconds:.1f} s", file=sys.stderr, flush=True)
    return records


def keep_adapter(start: Path, values: dict[str, str]) -> None:
    """Train the adapter that the cases use, and keep it beside them."""
    from tests.recorded import world

    made = [
        "data pack corpus -o packed --base base --min-tokens 16",
        "pretrain pretrain.yaml --set optim.steps=400 --set run.log_every=100",
    ]
    folder = start.parent / "making"
    shutil.copytree(start, folder)
    records = run_group("adapter", [{"run": line} for line in made], folder, values)
    if any(record.get("code") != 0 for record in records.values()):
        sys.exit(json.dumps(records, indent=1))
    shutil.copytree(folder / "runs/pretrain/adapter", world.ADAPTER)
    shutil.copytree(world.ADAPTER, start / "adapter")


def compare(name: str, records: dict[str, Any]) -> list[str]:
    """What differs from the kept records of a group."""
    from tests.recorded.outputs import differences

    path = EXPECTED / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    new = json.loads(json.dumps(records))
    found = []
    for title in [*old, *(title for title in new if title not in old)]:
        if title not in new or title not in old:
            found.append(f"{name}: {title}\n  is {'not kept yet' if title in new else 'gone'}")
        elif lines := differences(old[title], new[title]):
            shown = "\n  ".join(lines[:8] + ([f"and {len(lines) - 8} more"] if lines[8:] else []))
            found.append(f"{name}: {title}\n  {shown}")
    return found


def record_all(groups: dict[str, Any], values: dict[str, str], only: str, tmp: Path) -> Any:
    """The records of the groups that are wanted, by name."""
    from tests.recorded import world

    start = tmp / "world"
    world.make_world(start)
    if not (start / "adapter").exists():
        keep_adapter(start, values)
    records = {}
    for name, cases in groups.items():
        if name != "world" and not fnmatch.fnmatch(name, only):
            continue
        folder = tmp / name
        if name != "world":
            shutil.copytree(start, folder)
        records[name] = run_group(name, cases, folder, values)
    return {name: record for name, record in records.items() if fnmatch.fnmatch(name, only)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="keep what comes out")
    mode.add_argument("--check", action="store_true", help="compare it with what was kept")
    parser.add_argument("--only", default="*", help="groups to run, such as 'store*'")
    parser.add_argument("--keep", type=Path, help="a new folder to work in that is left there")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("ICAE_S", "ICAE_E"))]:
        del os.environ[name]
    os.environ |= ENVIRONMENT
    from tests.recorded import stub
    from tests.recorded.group import warm_up

    warm_up()
    cases = tomllib.loads((HERE / "cases.toml").read_text())
    groups, values = cases["groups"], cases["values"]
    server = stub.make_server()
    values["long"] = "The fox and the hen. " * 800
    values["stub"] = f"127.0.0.1:{server.server_address[1]}"
    pid = os.fork()
    if not pid:
        server.serve_forever()
    tmp = options.keep or Path(tempfile.mkdtemp(prefix="recorded"))
    tmp.mkdir(parents=True, exist_ok=True)
    try:
        records = record_all(groups, values, options.only, tmp.resolve())
    finally:
        os.kill(pid, signal.SIGTERM)
        if not options.keep:
            shutil.rmtree(tmp)
    EXPECTED.mkdir(exist_ok=True)
    if options.write:
        for name, record in records.items():
            text = json.dumps(record, indent=1, ensure_ascii=False)
            (EXPECTED / f"{name}.json").write_text(text + "\n")
        return
    found = [line for name, record in records.items() for line in compare(name, record)]
    print("\n".join(found))
    count = sum(len(record) for record in records.values())
    print(f"{len(found)} of {count} cases differ.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
