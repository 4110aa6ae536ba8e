"""Inputs for ``benchmarks/fuzz.py``: valid files of each kind, and what is done to them."""
