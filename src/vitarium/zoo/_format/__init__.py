"""The format of checkpoint files; docs/format.md has it in words."""
