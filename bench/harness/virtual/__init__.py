"""
What `simulate.py` is made of: the scheduler in virtual time, before a model of workers.

`engine` runs one; `workloads` says what comes, `arms` who serves it and how much is known, `orders`
how low any ordering gets. `study` runs all of it, `figures`, `targets`, `report` and `plot` show
what came out; `scale` measures cost in real time.
"""
