"""Confidence: the notes' gate table, Murphy's and other identities, intervals that cover, and a user's own file.

Numbers marked scikit-learn were printed by scikit-learn 1.9.1, which is not among the dependencies.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from scipy import stats

from sim.errors import InputError, RunError
from sim.quality import answers, calibration, gates, latent
from sim.report import calibrating
from sim.rng import stream
from sim.theory.chance import student_interval

SAMPLES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=4, max_size=60)


def split(sample: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    c, y = zip(*sample)
    return np.array(c), np.array(y)


@pytest.mark.parametrize(
    ("sharpen", "shift", "escalated", "caught", "left"),
    [
        (1, 0, 0.0164, 0.648, 0.00349),
        (2, 0, 0.0088, 0.455, 0.00540),
        (3, 0, 0.0069, 0.388, 0.00606),
        (1, 3, 0.00035, 0.031, 0.00960),
    ],
)
def test_the_gate_table_of_the_notes(
    sharpen: float, shift: float, escalated: float, caught: float, left: float
) -> None:
    """Measured there once with two million answers; here with twelve seeds, whose intervals must hold its numbers."""
    fixed, quantile = [], []
    for seed in range(12):
        drawn = latent.draw(stream(seed, "test.gate"), 50_000, 0.99, 2.0, sharpen, shift)
        row = gates.judge(gates.Gate(0.8), drawn.confidence, drawn.correct)
        fixed.append((row.escalated, row.caught.estimate, row.residual))
        (row,) = gates.quantile(drawn.confidence, drawn.correct, [0.05])
        quantile.append((row.escalated, row.caught.estimate, row.residual))
    for values, published in zip(np.array(fixed).T, (escalated, caught, left)):
        found = student_interval(values, 0.999)
        assert found.low - 0.002 * published <= published <= found.high + 0.002 * published
    for values, published in zip(np.array(quantile).T[1:], (0.944, 0.00055)):
        found = student_interval(values, 0.999)
        assert found.low <= published <= found.high


def test_alike_questions_cannot_be_gated_and_a_constant_is_calibrated() -> None:
    caught, area = [], []
    for seed in range(12):
        drawn = latent.draw(stream(seed, "test.alike"), 40_000, 0.99, 20.0)
        caught.append(gates.quantile(drawn.confidence, drawn.correct, [0.05])[0].caught.estimate)
        area.append(calibration.auroc(drawn.confidence, drawn.correct).estimate)
    assert np.mean(caught) == pytest.approx(0.43, abs=0.02)
    assert np.mean(area) == pytest.approx(0.90, abs=0.01)
    constant = np.full(40_000, 0.99)
    assert calibration.ece(calibration.reliability(constant, drawn.correct)).plain < 0.001
    assert gates.quantile(constant, drawn.correct, [0.05])[0].caught.estimate == pytest.approx(0.05)
    assert gates.judge(gates.Gate(0.8), constant, drawn.correct).escalated == 0


@given(SAMPLES, st.integers(2, 20))
def test_briers_parts_add_up(sample: list[tuple[float, bool]], bins: int) -> None:
    c, y = split(sample)
    parts = calibration.brier(c, y, bins)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert whole == pytest.approx(((c - y) ** 2).mean(), abs=1e-12)


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=3, max_size=50))
def test_with_one_confidence_a_bin_nothing_is_left_within(sample: list[tuple[float, bool]]) -> None:
    assert calibration.brier(*split(sample), bins=50).within == pytest.approx(0, abs=1e-12)


@given(SAMPLES)
def test_bins_lose_nobody_and_never_part_equals(sample: list[tuple[float, bool]]) -> None:
    c, y = split([*sample, *sample])
    bins = calibration.reliability(c, y)
    assert bins.answers.sum() == c.size
    assert bins.right.sum() == y.sum()
    assert np.all(np.diff(bins.confidence) > 0)


@given(SAMPLES, st.floats(0.2, 5), st.floats(-3, 3))
def test_recalibration_moves_no_quantile_gate(sample: list[tuple[float, bool]], slope: float, shift: float) -> None:
    c, y = split([(round(0.01 + 0.98 * c, 3), y) for c, y in sample])
    moved = calibration.recalibrated(c, slope, shift)
    for share in (0.1, 0.33, 0.5):
        ours = gates.judge(gates.of_share(c, share), c, y)
        theirs = gates.judge(gates.of_share(moved, share), moved, y)
        assert ours.escalated == pytest.approx(share)
        assert theirs.residual == pytest.approx(ours.residual)
        assert y.all() or ours.caught.estimate <= gates.perfect(share, (~y).mean()) + 1e-9


def test_discrimination_is_mann_whitneys() -> None:
    c, y = example()
    found = calibration.auroc(c, y)
    u = stats.mannwhitneyu(c[y], c[~y]).statistic
    assert found.estimate == pytest.approx(u / (y.sum() * (~y).sum()))
    assert found.estimate == pytest.approx(0.7782224959)  # scikit-learn
    assert calibration.brier(c, y).score == pytest.approx(0.2250190183)  # scikit-learn
    assert calibration.recalibration(c, y) == pytest.approx((1.31982827, -1.22170669), abs=1e-4)  # scikit-learn
    assert calibration.recalibration(c, y, shifted=False) == pytest.approx((0.57617255, 0), abs=1e-4)  # scikit-learn
    perfect = calibration.auroc([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert perfect.estimate == 1
    assert perfect.low < 0.7


def example() -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(200)
    c = 0.5 + 0.499 * ((i * 37) % 200) / 200
    return c, ((i * 53) % 101) / 101 < c**2


def test_intervals_of_discrimination_and_calibration_cover() -> None:
    """AUROC and ECE (slightly over-confident: the truth by a large sample) over four hundred samples."""
    big = latent.draw(stream(1, "test.truth"), 1_000_000, 0.9, 3.0, 1.5)
    area = calibration.auroc(big.confidence, big.correct).estimate
    edges = np.quantile(big.confidence, np.linspace(0, 1, 11))
    parts = np.clip(np.searchsorted(edges, big.confidence) - 1, 0, 9)
    gaps = np.bincount(parts, big.confidence - big.p) / big.p.size
    truth = np.abs(gaps).sum()
    inside = np.zeros(2)
    for seed in range(400):
        drawn = latent.draw(stream(seed, "test.cover"), 1500, 0.9, 3.0, 1.5)
        found = calibration.auroc(drawn.confidence, drawn.correct)
        ece = calibration.ece(calibration.reliability(drawn.confidence, drawn.correct), seed=seed).interval
        inside += [found.low <= area <= found.high, ece.low <= truth <= ece.high]
    assert np.all((inside / 400 >= 0.92) & (inside / 400 <= 0.98)), inside


def test_a_calibrated_model_is_rarely_above_what_chance_gives() -> None:
    above = 0
    for seed in range(250):
        drawn = latent.draw(stream(seed, "test.floor"), 1000, 0.9, 3.0)
        found = calibration.ece(calibration.reliability(drawn.confidence, drawn.correct), seed=seed)
        above += found.plain > found.floor
        assert found.interval.low == 0 or found.plain > 0
    assert above / 250 <= 0.08


@given(SAMPLES)
def test_risk_and_coverage(sample: list[tuple[float, bool]]) -> None:
    c, y = split(sample)
    coverage, risk = calibration.risk_coverage(c, y)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx((~y).mean())
    order = stream(1, "test.order").permutation(c.size)
    assert calibration.aurc(c[order], y[order]) == pytest.approx(calibration.aurc(c, y))


@given(SAMPLES, st.floats(0.01, 2), st.floats(0.1, 50))
def test_no_gate_is_cheaper_than_the_cheapest(sample: list[tuple[float, bool]], review: float, error: float) -> None:
    c, y = split(sample)
    best = gates.cheapest(c, y, review, error)
    for row in gates.fixed(c, y, [0, *c, 2], review, error):
        assert best.cost <= row.cost + 1e-9


def test_chows_threshold_is_the_cheapest_where_confidence_is_calibrated() -> None:
    drawn = latent.draw(stream(3, "test.chow"), 300_000, 0.95, 2.0)
    at = gates.threshold_of_least_cost(1, 20)
    assert at == 0.95
    ours = gates.judge(gates.Gate(at), drawn.confidence, drawn.correct, 1, 20)
    assert ours.cost == pytest.approx(gates.cheapest(drawn.confidence, drawn.correct, 1, 20).cost, rel=0.02)


def test_noise_lowers_discrimination_and_sharpening_does_not() -> None:
    areas = []
    for sharpen, noise in ((1, 0), (3, 0), (1, 2)):
        drawn = latent.draw(stream(1, "test.noise"), 50_000, 0.9, 2.0, sharpen, noise=noise)
        areas.append(calibration.auroc(drawn.confidence, drawn.correct).estimate)
    assert areas[1] == pytest.approx(areas[0], abs=1e-3)
    assert areas[2] < areas[0] - 0.02


@pytest.mark.parametrize(
    ("made", "first"),
    [
        ({"mean": 0.9, "kappa": 1.0, "sharpen": 1.0, "shift": 3.0}, "What matters here is calibration"),
        ({"mean": 0.95, "kappa": 50.0}, "What matters here is discrimination"),
        ({"mean": 0.9, "kappa": 0.4}, "Neither calibration nor discrimination"),
    ],
)
def test_it_says_what_matters(made: dict[str, float], first: str) -> None:
    drawn = latent.draw(stream(5, "test.verdict"), 20_000, **made)
    found = calibrating.examine("a.csv", answers.Answers(drawn.confidence, drawn.correct, None, ""))
    assert calibrating.verdict(found)[0].startswith(first)


def test_answers_all_right_have_no_verdict() -> None:
    with pytest.raises(RunError, match="all 3 answers are right"):
        calibrating.examine("a.csv", answers.Answers(np.ones(3), np.ones(3, bool), None, ""))


def test_a_file_is_read_whatever_its_columns_are_called(tmp_path: Path) -> None:
    for name, text in (
        ("a.csv", "confidence,correct,cohort\n0.9,1,x\n80%,no,y\n"),
        ("b.csv", "id;Score;wrong;lang\n1;0.9;false;x\n2;0.8;true;y\n\n"),
        ("c.csv", "\ufeffq\tprob\tlabel\tgroup\nhi\t.9\tTrue\tx\nyou\t.8\tFalse\ty\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        found = answers.read(tmp_path / name)
        assert found.confidence.tolist() == [0.9, 0.8]
        assert found.correct.tolist() == [True, False]
        assert found.cohort is not None
        assert found.cohort.tolist() == ["x", "y"]
    read = "Read 'prob' as confidence, 'label' as correct, 'group' as cohort; --columns says otherwise."
    assert found.read_as == f"{read} Not used: q."
    table = pyarrow.table({"p": [0.9, 0.8], "ok?": [1, 0]})
    parquet.write_table(table, tmp_path / "d.parquet")
    found = answers.read(tmp_path / "d.parquet", {"correct": "ok?"})
    assert found.correct.tolist() == [True, False]
    assert found.cohort is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("confidence,correct\n0.9,1\n0.8\n", "a.csv:3: expected 2 columns as in the first line, got 1"),
        ("confidence,correct\n0.9,1\n95,1\n", "a.csv:3: confidence: expected a fraction .* got '95'; did you mean 95%"),
        ("confidence,correct\n0.9,1\n,1\n", "a.csv:3: confidence: expected a fraction .* got nothing"),
        ("confidence,correct\nnan,1\n", "a.csv:2: confidence: expected"),
        ("confidence,correct\n0.9,maybe\n", "a.csv:2: correct: expected 1 or 0, true or false, got 'maybe'"),
        ("confidence,correct,cohort\n0.9,1,\n", "a.csv:2: cohort: expected a name, got nothing"),
        ('confidence,correct\n0.9,"1\n"\n0.9,2\n', "a.csv:4: correct: expected 1 or 0"),
        ("confidence,correct\n" + "x,1\n" * 9, "a.csv:4: .*; and 6 more rows that cannot be read"),
        ("confidence,correct\n", "holds no answers"),
        ("confidence,correct\n0.9,\n", "a.csv: correct: expected the truth of at least some answers, got nothing"),
        ("", "is empty"),
        ("conf,verdict\n1,1\n", "no column is called correct or alike.*columns: conf, verdict"),
    ],
)
def test_bad_rows_are_named_by_line_and_never_dropped(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        answers.read(tmp_path / "a.csv")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(InputError, match="is not a Parquet file"):
        answers.read(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_bytes(b"confidence,correct\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="expected a CSV file in UTF-8"):
        answers.read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("confidence,correct\n1,1\n")
    with pytest.raises(InputError, match="no column 'confidnce'; did you mean 'confidence'"):
        answers.read(tmp_path / "b.csv", {"confidence": "confidnce"})


def of_two_languages(path: Path, wrong: tuple[int, int], ungraded: int = 0) -> Path:
    """Write 2,000 answers in one language and 500 in another, of which so many are *wrong*, and some *ungraded*."""
    rows = ["confidence,correct,lang"]
    for name, n, k in (("en", 2000, wrong[0]), ("de", 500, wrong[1])):
        rows += [f"{0.3 + 0.6 * (i >= k)},{int(i >= k)},{name}" for i in range(n)]
    rows += [f"{0.9 if i % 50 else 0.3},,en" for i in range(ungraded)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_cohort_that_is_worse_is_named_and_luck_is_not(tmp_path: Path) -> None:
    found = calibrating.examine("a.csv", answers.read(of_two_languages(tmp_path / "a.csv", (20, 30))))
    assert found.worse == ["de"]
    said = calibrating._worse(found)[0]
    assert said.startswith("Wrong more often than the others, and not by chance: de (Fisher's exact test, Holm's")
    alike = calibrating.examine("b.csv", answers.read(of_two_languages(tmp_path / "b.csv", (20, 6))))
    assert alike.worse == []
    assert calibrating._worse(alike)[0].startswith("None is wrong more often than the others by more than chance")
    assert calibrating.as_json(found)["worse_than_the_others"] == ["de"]
    chances = {one["name"]: one["chance"] for one in calibrating.as_json(found)["cohorts"]}
    assert chances["de"] < 1e-6 < chances["en"]


def test_answers_that_nobody_graded_make_the_error_rate_surer_and_change_nothing_else(tmp_path: Path) -> None:
    few = calibrating.examine("a.csv", answers.read(of_two_languages(tmp_path / "a.csv", (40, 10))))
    data = answers.read(of_two_languages(tmp_path / "b.csv", (40, 10), 10_000))
    many = calibrating.examine("b.csv", data)
    assert data.ungraded.size == 10_000
    assert many.whole == few.whole
    assert few.wrong_of_all is None
    assert many.wrong_of_all is not None
    _, low, high = many.wrong_of_all
    assert low < 0.02 < high
    assert high - low < 0.6 * (few.whole.wrong.high - few.whole.wrong.low)
    text = io.StringIO()
    calibrating.show(many, [], text)
    assert "b.csv: 2,500 answers, 2% wrong; 10,000 more not graded" in text.getvalue()
    assert "95%, PPI++; if chance chose which were graded" in " ".join(text.getvalue().split())
    assert calibrating.as_json(many)["ungraded"] == 10_000


def test_where_people_look_at_what_the_gate_holds_back_the_rate_of_all_is_still_right(tmp_path: Path) -> None:
    """Graded: all that a gate at 0.8 holds back, and one in ten of the others."""
    rng = stream(5, "test.looked")
    lines, truth = ["confidence,correct"], []
    for confidence in rng.beta(8, 1, 20_000):
        right = rng.random() < confidence
        truth.append(right)
        lines.append(f"{confidence:.4f},{int(right) if confidence < 0.8 or rng.random() < 0.1 else ''}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found = calibrating.examine("a.csv", answers.read(tmp_path / "a.csv"))
    wrong = 1 - np.mean(truth)
    assert found.whole.wrong.low > 1.5 * wrong  # of those that were graded
    assert found.wrong_by_gate is not None
    assert found.wrong_by_gate.low < wrong < found.wrong_by_gate.high < 1.2 * wrong
    text = io.StringIO()
    calibrating.show(found, [], text)
    assert "the same of all, by the gate at 0.8" in " ".join(text.getvalue().split())
