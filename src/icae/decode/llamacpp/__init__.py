"""The llama.cpp runtime: memories read as embeddings, from weights in a GGUF file.

Needs the extra ``llamacpp``. Neither torch nor transformers is imported.
"""
