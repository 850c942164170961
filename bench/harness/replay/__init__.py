"""
What `replay.py` is made of.

`reader` makes a `recording` of what the flight recorder wrote, `truth` says how long each job takes
on each worker, `run` has the engine of `bench.harness.virtual` run the scheduler on it; `outcome`,
`report` and `plot` make of it what people read.
"""
