"""
What `replay.py` is made of.

`recording` reads what the flight recorder wrote, `truth` says how long each job takes on each
worker, `engine` runs the scheduler on it in virtual time; `figures`, `report` and `plot` make of it
what people read.
"""
