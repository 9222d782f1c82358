"""Rules as they go into the repository of a service, and what the real promtool says of them."""
