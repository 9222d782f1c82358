"""Where series come from that no run of ours left: text with times, remote read, a Prometheus that answers."""
