"""Average the weights of two adapters of one lineage.

python benchmarks/average_adapters.py A B -o OUT --share 0.5      (the share of B)

Wortsman et al. 2022 (arXiv:2109.01903) interpolate a model before and after fine-tuning; the
average is often nearly as good as either at what it is good at. Everything else in the folder,
its record and model card among it, is B's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from icae.model.adapter_files import ADAPTER


def average(first: Path, second: Path, out: Path, *, share: float) -> None:
    """Write the folder of the average.

    Args:
        first: Adapter folder.
        second: Adapter folder of the same architecture.
        out: Target folder; must not exist.
        share: Weight of the second, 0..1.

    Raises:
        ValueError: If the two do not have the same tensors.
    """
    mixed = {}
    for name in ADAPTER.weights:
        a, b = load_file(first / name), load_file(second / name)
        if {k: v.shape for k, v in a.items()} != {k: v.shape for k, v in b.items()}:
            raise ValueError(f"{first} and {second} differ in architecture ({name})")
        mixed[name] = {
            k: ((1 - share) * a[k].float() + share * b[k].float()).to(b[k].dtype) for k in b
        }
    shutil.copytree(second, out)
    for name, tensors in mixed.items():
        save_file(tensors, out / name)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5)
    options = parser.parse_args()
    average(options.first, options.second, options.output, share=options.share)


if __name__ == "__main__":
    main()
