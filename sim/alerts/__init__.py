"""Prometheus rules, judged on series as Prometheus would: rule files, a subset of PromQL, the states of alerts.

Proven against the real Prometheus 2.42 (`tests/test_alerts_prometheus.py`); what is not known exactly is refused.
"""
