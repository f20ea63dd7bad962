"""Measure speed, memory and conformance: each file is one command, `python -m benchmarks.NAME`."""
