"""`icae reconstruct`."""

from __future__ import annotations

from icae.memory import Memory


def test_json_holds_every_span_asked_for_in_order(payload, loaded, made, memory_file):
    told = payload("reconstruct", memory_file, "--span", 2, "--span", 0)
    assert [item["span"] for item in told["spans"]] == [0, 2]
    for item in told["spans"]:
        assert item["original"] == made["notes"].span_source(item["span"])
        assert item["tokens"] == made["notes"].spans[item["span"]].tokens
    shares = [item["exact_prefix"] for item in told["spans"]]
    assert told["exact_prefix"] == sum(shares) / 2
    assert (told["output"], told["runtime"]) == (None, "torch float32")


def test_without_the_text_nothing_is_compared(payload, error, loaded, bare_memory_file):
    told = payload("reconstruct", bare_memory_file, "--span", 1)
    assert (told["exact_prefix"], told["spans"][0]["original"]) == (None, None)
    assert error("reconstruct", bare_memory_file, "--compare")["got"].startswith("no source text")


def test_what_cannot_be_written_is_refused_before_the_model_is_loaded(
    error, no_model, memory_file, tmp_path
):
    spans = len(Memory.load(memory_file).spans)
    told = error("reconstruct", memory_file, "--span", spans)
    assert f"0..{spans - 1}" in told["expected"]
    (tmp_path / "out.txt").write_text("precious")
    assert "--force" in error("reconstruct", memory_file, "-o", tmp_path / "out.txt")["fix"]
    assert error("reconstruct", memory_file, "-o", memory_file, "--force")["type"] == "InputError"


def test_output_goes_to_the_file_byte_for_byte(icae, payload, loaded, memory_file, tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    options = ("--span", 0, "--output", path, "--force")
    assert icae("reconstruct", memory_file, *options).stdout == ""
    told = payload("reconstruct", memory_file, *options)
    assert path.read_bytes().decode("utf-8", errors="replace") == told["text"]
    assert told["output"] == str(path)
