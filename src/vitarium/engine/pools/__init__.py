"""Pools of workers: processes on this machine, or a Ray cluster."""
