"""From text to memory: spans, slots, ratio, budget or fidelity; edits and refinement."""
