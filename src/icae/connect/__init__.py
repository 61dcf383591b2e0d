"""Other programs that use memories, one a file, each behind an extra of its name."""
