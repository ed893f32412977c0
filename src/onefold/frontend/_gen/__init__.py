"""Schemas as plain tables, written by the generators in `tools/`; not edited by hand."""
