"""Right and wrong: what an accuracy number is worth once volume, pattern, detection and containment are known.

Pure mathematics, one idea a file, each with the paper it comes from: `rates` (how sure a share is, how many answers it
takes), `volume` (wrong answers a minute, a day, before noon), `chains` (steps that compound, verifiers, retries),
`spread` (who meets the errors), `mix` (benchmark against production), `calibration` and `gates` (what a confidence
says, and what acting on it catches), `latent` (answers to try both on), `answers` (a user's own file), `judges` and
`sampling` (estimates from graded answers), `sequential` and `evidence` (noticing a change without fooling oneself),
`delays`, `budgets`, and `decision` (is it good enough?).

And one judge for simulated runs: `judge` (was this answer right? a pure function of the request and what happened to
it, counted as it goes), by rules that `reading` takes from a scenario; `verdicts` are its words, `chances` its tables.

Functions take fractions in [0, 1] and seconds, return `sim.theory.chance.Interval` where a number is estimated, and
raise ``ValueError`` for arguments that make no sense. Only `answers` reads a file, and nothing a clock.
"""
