"""Reproduce the paper's grid, a row of its tables, or a study of your own."""
