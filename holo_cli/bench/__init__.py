"""Measurements that carry their machine, versions and date."""
