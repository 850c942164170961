"""Who may come in: keys, their limits, and pages of other origins."""
