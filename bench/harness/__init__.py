"""
What the bench scripts share.

`options` says what to measure, `workload` makes the requests, `fleet` and `router` start what is
measured, `load` and `client` send, `summary` counts, `report` and `plot` show.
"""
