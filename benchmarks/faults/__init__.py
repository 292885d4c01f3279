"""The fault bench: holo is killed, its files are damaged, and its surroundings taken away.

See `__main__.py` for how it is run, docs/results/faults.md for what it found.
"""
