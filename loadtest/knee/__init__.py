"""The knee: the highest rate at which an endpoint keeps an SLO, found in stages and judged request by request."""
