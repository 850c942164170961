"""
Benchmarks of the router: run the scripts of this folder with Python.
"""
