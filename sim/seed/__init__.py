"""The article that Blowout grew from, claim by claim: what it says, what we find, and whether it is right.

The article is Tian Pan, "1% Error Rate, 10 Million Users: The Math of AI Failures at Scale". `table` lists its 57
claims in our words; `arithmetic`, `pattern`, `agents`, `serving`, `alerting`, `containment` and `seeing` have one
function a claim that measures it, in a `lab` that plays scenarios and draws samples; `verdicts` turns measurements
into right, loose or wrong by one rule; `played` holds formulas against shipped scenarios; `examine` runs them all;
`figures`, `page` and `told` show them.
"""
