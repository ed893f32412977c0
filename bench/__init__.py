"""Onefold beside other engines, on standard networks: see run.py."""
