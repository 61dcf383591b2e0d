"""The Python interface: what a program that imports icae sees."""

import json
from pathlib import Path

import icae


def facts(memory):
    return {
        "tokens": memory.tokens,
        "slots": memory.slot_count,
        "verbatim": memory.verbatim_tokens,
        "positions": memory.positions,
        "ratio": memory.ratio,
        "fidelity": memory.fidelity,
        "documents": [document.name for document in memory.documents],
        "spans": len(memory.spans),
        "source": memory.span_source(0),
    }


engine = icae.load("adapter", dtype="float32", device="cpu")
fox = engine.compress(Path("fox.txt").read_text(), ratio=4, name="fox")
annex = engine.compress("The annex was added in 1911.", ratio=2, verify=False)
both = fox + annex
many = engine.compress_many(["The fox.", "The hen is in the barn."], names=["a", "b"])
both.save("both.icae")
again = icae.Memory.load("both.icae")
answer = engine.ask(both, "Who signed it?", max_new_tokens=8)
pieces = []
streamed = engine.ask(fox, "Where?", max_new_tokens=6, on_text=pieces.append)
written = engine.reconstruct(fox, spans=[0, 2])
reader = icae.open_reader("adapter", runtime="torch", device="cpu", dtype="float32")
found = {
    "public": sorted(icae.__all__),
    "fox": facts(fox),
    "annex": facts(annex),
    "both": facts(both),
    "again": again == both,
    "many": [facts(memory) for memory in many],
    "verbatim": facts(engine.verbatim("The cat.")),
    "slice": facts(fox.slice(0, 30)),
    "select": facts(both.select([0, 1])),
    "without source": facts(fox.without_source()),
    "appended": facts(engine.append(fox, " And more.")),
    "replaced": facts(engine.replace(fox, 4, 7, "hen")),
    "deleted": facts(engine.delete(fox, 0, 10)),
    "answer": answer.text,
    "streamed": [streamed.text, "".join(pieces)],
    "written": [part.text for part in written],
    "kv_bytes": engine.kv_bytes(10),
    "count": engine.count_tokens("The fox."),
    "reader": reader.ask(fox, "Where?", max_new_tokens=6).text == streamed.text,
}
for name, wrong in {
    "blank": lambda: engine.compress(" "),
    "ratio": lambda: engine.compress("The fox.", ratio=0.1),
    "adapter": lambda: icae.load("missing"),
    "memory": lambda: icae.Memory.load("fox.txt"),
    "question": lambda: engine.ask(fox, ""),
}.items():
    try:
        wrong()
    except icae.IcaeError as error:
        found[f"wrong {name}"] = [type(error).__name__, error.message]
print(json.dumps(found))
