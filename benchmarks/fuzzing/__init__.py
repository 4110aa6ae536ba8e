"""The inputs of ``benchmarks/fuzz.py``: valid files of each kind, and their corruption."""
