from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

import icae as package
from icae.cli import app as app_module
from word_memories import word_memory

RUN = [sys.executable, "-m", "icae"]
# What is left in a buffer at exit matters here, so output has to be buffered.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
HEAVY = ("torch", "transformers", "peft")
SLOW = (*HEAVY, "numpy", "yaml")


def test_version_is_that_of_the_package(icae):
    result = icae("--version")
    assert (result.exit_code, result.stdout) == (0, f"icae {package.__version__}\n")


@pytest.mark.parametrize("group", [[], ["store"], ["eval"]])
def test_group_without_a_command_prints_its_help_as_a_result(icae, group):
    result = icae(*group)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == icae(*group, "--help").stdout
    assert "Commands" in result.stdout


@pytest.mark.parametrize(
    "call",
    [["nonsense"], ["inspect"], ["inspect", "x.icae", "--nope"], ["edit", "x.icae"]],
)
def test_wrong_usage_is_one_object_with_json(icae, call):
    result = icae(*call, "--json")
    assert result.exit_code == 2
    told = json.loads(result.stdout)["error"]
    assert told["type"] == "UsageError"
    assert told["message"] in " ".join(result.stderr.replace("│", " ").split())
    assert icae(*call).stdout == ""


def test_shell_completes_commands(icae, monkeypatch):
    asked = {"_ICAE_COMPLETE": "complete_bash", "COMP_WORDS": "icae sto", "COMP_CWORD": "1"}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert icae().stdout.split() == ["store"]


def test_quiet_leaves_out_notes_and_keeps_results_and_errors(icae, loaded, memory_file):
    loud, quiet = icae("ask", memory_file, "Who?"), icae("ask", memory_file, "Who?", "--quiet")
    assert quiet.stdout == loud.stdout
    assert "decoder positions" in loud.stderr
    assert quiet.stderr == ""
    assert "no such file" in icae("inspect", "missing.icae", "-q").stderr


def test_importing_the_command_line_loads_no_model_library():
    code = f"import sys, icae.cli.app; print([m for m in {SLOW} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_inspect_works_where_torch_cannot_be_imported(memory_file):
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); "
    run = block + "from icae.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", run, "inspect", str(memory_file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "notes.txt" in done.stdout


def inspect_into(stdout: int | TextIO, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`icae inspect` in a process that writes to a file or pipe."""
    return subprocess.run(
        [*RUN, "inspect", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=BUFFERED,
        text=True,
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes as on POSIX")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_closed_pipe_ends_without_a_traceback(memory_file, options):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = inspect_into(write_end, memory_file, *options)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_full_disk_is_an_error_without_a_traceback(memory_file, options):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = inspect_into(full, memory_file, *options)
    assert done.returncode == 1
    assert done.stderr.startswith("The result cannot be written")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "cp949", "ascii"])
@pytest.mark.parametrize("command", ["inspect notes.icae", "--help"])
def test_output_that_lacks_a_character_gets_the_rest(tmp_path, monkeypatch, encoding, command):
    monkeypatch.chdir(tmp_path)
    word_memory("漢字 “quoted” — naïve ⟦text⟧", name="漢字 ÿ.txt").save("notes.icae")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "argv", ["icae", *command.split()])
    with pytest.raises(SystemExit) as ended:
        app_module.main()
    assert ended.value.code == 0
    sys.stdout.flush()
    told = raw.getvalue().decode(encoding)
    assert ("compress" if command == "--help" else "quoted") in told


def test_ctrl_c_outside_a_command_exits_with_130(monkeypatch, capsys):
    def interrupted(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app_module, "app", interrupted)
    with pytest.raises(SystemExit) as exit_info:
        app_module.main()
    assert exit_info.value.code == 130
    assert capsys.readouterr().err.strip() == "Interrupted."
