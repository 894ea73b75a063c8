"""The command lines: commands, their options, and how results and failures are told."""
