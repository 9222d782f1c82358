"""The same scenario against a real endpoint: Locust users in wall-clock time, the same run folder out."""
