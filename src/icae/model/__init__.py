"""The model: the paper, an equation a file.

Modules that need no torch: files of base and adapter, positions, objectives, prompts, the hub.
"""
