"""The 57 claims, in our words, and the verdict that each has had so far: `blowout reproduce` says when one changes."""

from typing import NamedTuple

from sim.seed.verdicts import Verdict

RIGHT, LOOSE, WRONG, NOT = Verdict.RIGHT, Verdict.LOOSE, Verdict.WRONG, Verdict.NOT_SIMULABLE


class Claim(NamedTuple):
    """A claim of the article: its number in our list, what it comes to, and the verdict that is expected."""

    number: int
    says: str
    expected: Verdict


PARTS: dict[str, tuple[Claim, ...]] = {
    "Arithmetic": (
        Claim(1, "A transcriber that is 99% right invents a phrase in 1% of the records", LOOSE),
        Claim(2, "With 30,000 clinicians that is tens of thousands of spoilt records a month", LOOSE),
        Claim(3, "Growing tenfold changes the number of errors, and not the accuracy", RIGHT),
        Claim(4, "Ten million users and 1% wrong make 100,000 wrong answers a day", RIGHT),
        Claim(5, "That is about 70 a minute", RIGHT),
        Claim(6, "Ten million requests an hour are modest traffic", NOT),
        Claim(7, "At ten million an hour a million wrong answers are out before noon", LOOSE),
        Claim(14, "99% right is 100 wrong answers for 10,000 users and 100,000 for ten million", RIGHT),
        Claim(43, "20 wrong of 2,000 tested: 99% right", RIGHT),
    ),
    "Shift and pattern": (
        Claim(8, "The accuracy of a test set is not the accuracy users meet", RIGHT),
        Claim(9, "In production models are 20-40% worse", LOOSE),
        Claim(10, "Users bring kinds of failure that no test set has", RIGHT),
        Claim(15, "A good average can hide a group for whom nothing works", RIGHT),
        Claim(40, "Errors at random and errors that hit the same people are two different things", RIGHT),
        Claim(44, "So measure how errors are spread, beside how many there are", RIGHT),
        Claim(45, "Random errors can be lived with; systematic ones must be mended in the model", RIGHT),
        Claim(53, "Grading a uniform sample misses small groups; a stratified one does not", RIGHT),
    ),
    "Agents": (
        Claim(11, "Five steps, each 95% right: 77% of the tasks succeed", RIGHT),
        Claim(12, "Ten steps, each 99% right: about one task in ten fails", RIGHT),
        Claim(13, "So agents of good parts are unreliable wholes", LOOSE),
        Claim(17, "A single run hides drops of up to 75% in sustained use", LOOSE),
        Claim(42, "100,000 wrong actions of agents are 100,000 incidents", LOOSE),
    ),
    "Serving": (
        Claim(16, "Reliability is accuracy that holds while load, users and versions change", RIGHT),
        Claim(22, "A service can be all green while its answers are wrong", RIGHT),
        Claim(24, "Time to first token and time per token are two signals", RIGHT),
        Claim(25, "KV memory fails like a cliff, so 90% for 15 minutes is the alarm", LOOSE),
        Claim(35, "P99 can explode while P50 stays where it is", RIGHT),
        Claim(36, "The slowest 1% stand in a queue that only grows", LOOSE),
        Claim(37, "In ordinary services all percentiles rise together", LOOSE),
        Claim(38, "P95 alone does not see such a tail", RIGHT),
    ),
    "Alerts": (
        Claim(29, "Page when more than 1% of requests fail for 5 minutes", WRONG),
        Claim(30, "Page when P95 is above 3 s for 10 minutes", WRONG),
        Claim(31, "P99 above three times P50 for 15 minutes warns of queues that fill", WRONG),
        Claim(32, "Page when KV memory is above 90% for 15 minutes", LOOSE),
        Claim(33, "Page when quality is 10% below its baseline", WRONG),
        Claim(34, "Such thresholds page before users are hurt", WRONG),
        Claim(46, "A budget of 2% a month, watched by these rules, is consistent", LOOSE),
    ),
    "Containment": (
        Claim(18, "Calibrated: of answers given with 90% confidence, 90% are right", RIGHT),
        Claim(19, "Wrong and sure of it is the most dangerous kind of wrong", RIGHT),
        Claim(20, "Calibration matters more than reliability, and that more than accuracy", LOOSE),
        Claim(21, "Accurate but overconfident does more harm than less accurate but calibrated", LOOSE),
        Claim(39, "Good enough depends on stakes, on undoing, and on noticing", RIGHT),
        Claim(41, "Sometimes a wrong answer costs less than checking all of them", RIGHT),
        Claim(47, "A confidence gate works only if confidence is calibrated", LOOSE),
        Claim(48, "A circuit breaker to simple rules contains a bad model", RIGHT),
        Claim(49, "A shadow run finds a worse model before users do", RIGHT),
        Claim(50, "Edits of prompts are the main cause of sudden drops in quality", NOT),
        Claim(51, "A flag undoes a release without a rollback of code", RIGHT),
        Claim(52, "Waiting for complaints fails", RIGHT),
    ),
    "Seeing": (
        Claim(23, "It takes four layers of monitoring at least", NOT),
        Claim(26, "Online grading can hold quality to an SLO, by kind of error", RIGHT),
        Claim(27, "A forecast for 2028", NOT),
        Claim(28, "Business figures lag by hours to days", RIGHT),
        Claim(54, "Model judges, schema checks and outcomes together tell the error rate", LOOSE),
        Claim(55, "Slow and wrong go together, so correlate the two", LOOSE),
        Claim(56, "Most teams have one layer and half of the next", NOT),
        Claim(57, "When, how often, in what pattern, and then what: a question about systems", RIGHT),
    ),
}  # fmt: skip

CLAIMS = {claim.number: claim for claims in PARTS.values() for claim in claims}
