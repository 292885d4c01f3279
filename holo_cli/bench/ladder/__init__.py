"""Ladders: entries trained at several sizes, power laws fitted to their losses, and a verdict."""
