"""Logs of training for other tools: one file per tool."""
