"""
What ``GET /openapi.json`` tells of the router's routes.

`sgl_droute.api.openapi.document` makes it of the route table, and of a description of each route:
plain data, in one module for each section of ``docs/api.md``, in OpenAPI's own words (3.1).
They are Python, not a file of JSON, so that pieces which many share have names, and comments.
"""
