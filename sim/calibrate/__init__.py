"""From what was measured to step times that can be simulated, and how far these may be trusted.

`steplog` reads what an engine logged of its steps, `fit` makes step times of it, `travel` the way between client and
engine; `factor` scales a tabulated grid where only clients' latencies are known; `runs` opens measured runs, `play`
plays them again, and `calibration` puts all of it together.
"""
