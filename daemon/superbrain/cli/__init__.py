"""The `superbrain` command: what an operator or a bundle author types."""
