"""A subset of PromQL: parsed, checked, and evaluated at many times at once with the very bits of Prometheus."""
