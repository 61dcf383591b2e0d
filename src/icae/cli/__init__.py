"""The command line: one module for each command, nothing but input and output.

Results go to standard output, progress and warnings to standard error. Importing
`icae.cli.app` imports neither torch nor transformers; a command that needs a model
loads it when it runs (see `icae.cli.engine`).
"""
