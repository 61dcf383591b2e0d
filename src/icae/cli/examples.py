"""Examples in the help of every command, by its name."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "demo": ("icae demo", 'icae demo report.pdf --question "Who signed it?" --seed 7'),
    "compress": (
        "icae compress report.pdf -o report.icae --ratio 4",
        "icae compress report.pdf -o report.icae --min-fidelity 0.98",
        "cat notes.txt | icae compress - -o notes.icae",
    ),
    "ask": (
        'icae ask report.icae "Who signed it?"',
        'icae ask report.icae "Who signed it?" --full-context',
        'icae ask --store library.db "Who signed it?"',
    ),
    "reconstruct": (
        "icae reconstruct report.icae --compare",
        "icae reconstruct report.icae --span 3",
    ),
    "refine": ("icae refine report.icae -o exact.icae",),
    "inspect": ("icae inspect report.icae --passages 5 --html report.html",),
    "chat": ("icae chat report.icae",),
    "append": ("icae append report.icae minutes.txt",),
    "edit": ("icae edit report.icae --delete 120:180 -o shorter.icae",),
    "slice": ("icae slice report.icae 0:500 -o start.icae",),
    "merge": ("icae merge report.icae annex.icae -o both.icae",),
    "upgrade": ("icae upgrade report.icae", "icae upgrade --store library.db"),
    "check": ("icae check meta-llama/Llama-3.2-1B", "icae check ./my-base --full"),
    "push": ("icae push my-adapter user/my-adapter", "icae push report.icae user/memories"),
    "serve": (
        "icae serve --store library.db --auto-compress 1024",
        "icae serve --config serve.yaml --check-config",
        "icae serve --engine http://gpu:8100 --keys keys.txt --host 0.0.0.0",
    ),
    "serve-key": ("icae serve-key alice --keys keys.txt",),
    "mcp": ("icae mcp --store library.db",),
    "bulk": ("icae bulk documents.jsonl memories/ --workers 8",),
    "plan": ("icae plan meta-llama/Llama-3.1-8B --documents 100000 --tokens 4096 --tflops 350",),
    "doctor": ("icae doctor",),
    "pretrain": ("icae pretrain recipes/gpu-512-pretrain.yaml --set base=meta-llama/Llama-3.2-1B",),
    "finetune": ("icae finetune recipes/own-triplets.yaml",),
    "study": ("icae study report.icae -o studied.icae",),
    "store add": ("icae store add --store library.db docs/*.md",),
    "store list": ("icae store list --store library.db",),
    "store show": ("icae store show --store library.db notes.md",),
    "store search": ('icae store search --store library.db "who signed"',),
    "store rm": ("icae store rm --store library.db notes.md",),
    "store verify": ("icae store verify --store library.db",),
    "store gc": ("icae store gc --store library.db",),
    "data pack": ("icae data pack corpus/ -o runs/packed/mine --base smollm2-135m-instruct",),
    "data build": ("icae data build recipes/data-permissive.yaml -o runs/packed/mix",),
    "pwc build": ("icae pwc build --corpus corpus/ --llm none -o pwc.jsonl",),
    "import official": ("icae import official weights.safetensors --base BASE -o adapter/",),
    "export official": ("icae export official adapter/ -o weights.safetensors",),
    "eval all": ("icae eval all held-out/ --questions triplets.jsonl --quick --out report/",),
    "eval reconstruction": ("icae eval reconstruction held-out/ --ratios 4,8 --lengths 128",),
    "eval continuation": ("icae eval continuation held-out/",),
    "eval random-text": ("icae eval random-text held-out/",),
    "eval refinement": ("icae eval refinement held-out/ --ratios 4 --steps 10",),
    "eval slots": ("icae eval slots held-out/ --adapter smollm2-135m",),
    "eval memorisation": ("icae eval memorisation held-out/",),
    "eval multi-span": ("icae eval multi-span held-out/",),
    "eval latency": ("icae eval latency held-out/",),
    "eval rivals": ("icae eval rivals triplets.jsonl --ratios 4",),
    "eval compare": ("icae eval compare report/qa.json other/qa.json",),
    "eval judge": (
        "icae eval judge a.json b.json --judge-url http://localhost:8080/v1 --judge-model NAME",
    ),
    "eval needle": ("icae eval needle held-out/ --lengths 512,1024 --kinds number,uuid",),
    "eval qa": ("icae eval qa triplets.jsonl --ratios 4,8",),
}


def epilog(name: str) -> str | None:
    """What stands below the help of a command: its examples, one a line."""
    examples = EXAMPLES.get(name)
    return None if examples is None else "\n\n".join(("Examples:", *(f"$ {e}" for e in examples)))
