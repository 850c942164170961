"""Clients' connections, and the requests that come over them."""
