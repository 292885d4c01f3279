"""The contract of a model as checks that run on any model, built-in or from outside.

`holo check` prints what they find; `tests/contract/` calls the same functions on every model.
"""
