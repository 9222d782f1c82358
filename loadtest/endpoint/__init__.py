"""A fake LLM service: the compiled fleet of a scenario behind the OpenAI API, in real time.

Clock, live world, room, wire format, metrics page, faults by hand, routes: one file each. Nothing here knows Locust.
"""
