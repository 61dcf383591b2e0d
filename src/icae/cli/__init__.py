"""The command line: one file a group of commands, nothing but input and output.

Results go to standard output, progress and warnings to standard error. Importing
`icae.cli.app` imports neither torch nor numpy; a command that needs a model loads it when
it runs (`icae.cli.options`). How a function becomes a command: `icae.cli.command`.
"""
