"""What becomes of requests, as logs, traces and metrics tell it."""
