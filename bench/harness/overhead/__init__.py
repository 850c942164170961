"""
What `bench_overhead.py` is made of.

`scenarios` says what to measure, `configs` and `proxies` what is measured, `backend` what stands
behind it. `wrk` and `waiting` send, `procfs` reads what it cost, `measure` puts these together;
`figures`, `targets`, `report` and `plot` make of it what people read. `layers` and `profiled` tell
where the router's time goes.
"""
