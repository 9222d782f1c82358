"""``blowout odds`` and ``blowout calibration``, as they are typed."""

import json
from pathlib import Path

import pytest

from sim.cli import main
from sim.quality import latent
from sim.rng import stream
from sim.units import fraction


def typed(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    return int(stop.value.code or 0)


def test_the_articles_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("odds", "--users", "10e6", "--per-day", "1", "--error", "1%", "--peak", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)["volume"]
    assert found["wrong_per_day"] == pytest.approx(100_000)
    assert found["wrong_per_minute"] == pytest.approx(69.44, abs=0.01)
    assert found["wrong_per_minute_peak"] == pytest.approx(138.89, abs=0.01)
    assert typed("odds", "--requests", "240_000_000", "--error", "0.01", "--peak", "2") == 0
    out = capsys.readouterr().out
    assert "240,000,000 requests a day, 1% of them wrong" in out
    assert "at 10:00" in out
    assert "at 13:50" in out
    assert "blowout odds --tested" in out


def test_a_percentage_and_a_fraction_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for steps in ("95%", ".95"):
        assert typed("odds", "--steps", "5", "--step-ok", steps) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "77.38%" in said[0]


def test_a_chain_with_a_verifier(capsys: pytest.CaptureFixture[str]) -> None:
    chain = ("odds", "--steps", "5", "--step-ok", "95%", "--verifier", "80%:5%", "--json")
    assert typed(*chain) == 0
    assert json.loads(capsys.readouterr().out)["steps"]["all_right_verified"] == pytest.approx(0.9464, abs=5e-5)
    assert typed(*chain, "--retries", "2", "--requests", "1e5") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"]["all_right_verified"] == pytest.approx(0.9450, abs=5e-5)
    assert found["unit"] == "task"
    assert found["volume"]["wrong_per_day"] == pytest.approx(1e5 * found["steps"]["task_error"])


def test_records_of_segments(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("odds", "--error", "1%/segment", "--segments", "30", "--records", "5e3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["records"]["record_error"] == pytest.approx(0.2603, abs=5e-5)
    assert found["volume"]["wrong_per_day"] == pytest.approx(1301.5, abs=0.5)
    assert typed("odds", "--error", "26%/record", "--segments", "30", "--users", "10", "--per-day", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unit"] == "record"
    assert found["records"]["segment_error"] == pytest.approx(0.01, abs=1e-4)


def test_a_test_set_and_what_follows_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    stakes = ("--stakes", "50", "--review-cost", "0.5", "--reversible", "90%", "--detectable", "30%", "--catch", "90%")
    args = ("odds", "--tested", "2000", "--wrong", "20", "--requests", "10e6", "--repair", "10m", "--judge", "90%:95%")
    assert typed(*args, *stakes, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"]["error_interval"] == pytest.approx([0.0061, 0.0154], abs=5e-5)
    assert found["volume"]["wrong_per_day_interval"] == pytest.approx([61_187, 154_021], abs=1)
    assert found["volume"]["repair_hours"] == pytest.approx(16_667, abs=1)
    assert found["judge"]["judge_shows"] == pytest.approx(0.0585)
    assert found["judge"]["labels_saved"] == pytest.approx(3.7, abs=0.05)
    assert found["decision"]["choice"] == "unsure"
    assert found["decision"]["break_even"] == pytest.approx(0.01516, abs=1e-5)
    assert typed(*args, *stakes) == 0
    out = capsys.readouterr().out
    assert "0.61% to 1.54%" in out
    assert "its interval holds the break-even" in out


@pytest.mark.parametrize("users", ["10M", "10 million", "10e6", "10,000,000", "0.01bn"])
def test_millions_may_be_written_as_people_do(users: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("odds", "--users", users, "--per-day", "1", "--error", "1%", "--json") == 0
    assert json.loads(capsys.readouterr().out)["volume"]["wrong_per_day"] == pytest.approx(100_000)


@pytest.mark.parametrize(("error", "luck"), [("100%", "1,000 ± 0"), ("26%", "260 ± 28"), ("0", "0 ± 0")])
def test_chance_never_makes_more_wrong_than_were_asked(
    error: str, luck: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("odds", "--requests", "1000", "--error", error) == 0
    assert luck in capsys.readouterr().out


def test_no_errors_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (("--error", "0"), ("--tested", "300", "--wrong", "0"), ("--error", "100%")):
        assert typed("odds", *error, "--users", "5", "--per-day", "3") == 0
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("error", ["0", "1%", "70%", "100%"])
@pytest.mark.parametrize("judge", ["100%:100%", "100%:95%", "90%:100%", "90%:95%"])
def test_a_judge_who_never_errs_one_way_or_both(error: str, judge: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("odds", "--error", error, "--judge", judge, "--json") == 0
    found = json.loads(capsys.readouterr().out)["judge"]
    p, (se, sp) = fraction(error) if "%" in error else 0.0, map(fraction, judge.split(":"))
    assert found["judge_shows"] == pytest.approx(p * se + (1 - p) * (1 - sp))
    if "labels_saved" in found:
        assert found["labels_saved"] > 1
    else:
        assert p in (0.0, 1.0) or se == sp == 1.0, "nobody has to look"


def test_so_few_that_a_million_takes_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("odds", "--requests", "1e-12", "--error", "1e-12", "--peak", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)["volume"]
    assert found["million_diurnal_s"] == found["million_s"] > 1e30


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("", "how often is it wrong? Give --error, --steps or --tested"),
        ("--users 10e6 --error 1%", "--users counts people and the error is of requests: say with --per-day"),
        ("--error 1% --segments 30", "of what? With --segments say --error 1%/segment or --error 1%/record"),
        ("--error 1%/segment", "say with --segments how many a record has"),
        ("--error 1% --records 9", "--error 1% is of requests and --records counts records"),
        ("--error 1%/record --requests 9", "--requests counts requests and the error is of records"),
        ("--steps 5 --step-ok 95% --records 9", "--records counts records and --steps makes tasks"),
        ("--error 1%/user", "expected a share of requests, segments or records (1%/segment), got '1%/user'"),
        ("--error 1% --users 5 --per-day 1 --requests 5", "--users and --requests both say how many there are"),
        ("--error 1% --steps 5 --step-ok 95%", "--error and --steps both say how often it is wrong"),
        ("--error 5", "did you mean 5%?"),
        ("--error 1", "--error 1: did you mean 1%? Write 100% if all are wrong"),
        ("--error 1.0/segment --segments 3", "did you mean 1%?"),
        ("--error 1% --requests 10x", "--requests: expected a number from 0 on, got '10x'"),
        ("--error 1e-320", "--error: expected 0 or at least 1e-12, got '1e-320'"),
        ("--error 1% --requests 1e-300", "--requests: expected 0 or at least 1e-12"),
        ("--error often", "--error: expected a fraction such as 0.01 or 1%, got 'often'"),
        ("--steps 5", "--steps says nothing alone; give it with --step-ok"),
        ("--steps 5.5 --step-ok 95%", "--steps: expected a whole number from 1 on, got '5.5'"),
        ("--tested 20 --wrong 21", "--wrong: expected at most the 20 of --tested, got 21"),
        ("--error 1% --peak 2", "--peak says nothing alone; give it with --users or --requests or --records"),
        ("--error 1% --requests 9 --peak 3", "--peak: expected a number from 1 to 2"),
        ("--error 1% --judge 90%", "--judge: expected SE:SP, such as 90%:95%, got '90%'"),
        ("--error 1% --judge 50%:50%", "this judge flags right answers as often as wrong ones"),
        ("--error 1% --stakes 5", "--stakes says nothing alone; give it with --review-cost"),
        ("--error 1% --requests 9 --repair soon", "--repair: expected a duration"),
    ],
)
def test_units_that_do_not_fit_are_refused_in_a_sentence(
    args: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("odds", *args.split()) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Answers of an over-confident model, in two languages."""
    rows = ["score,label,lang"]
    for language, n, mean, kappa, shift in (("en", 1500, 0.95, 2.0, 1.0), ("de", 200, 0.7, 8.0, 2.0)):
        drawn = latent.draw(stream(1, f"test.{language}"), n, mean, kappa, 1.5, shift)
        rows += [f"{c:.6f},{int(y)},{language}" for c, y in zip(drawn.confidence, drawn.correct)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_what_a_confidence_is_worth(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("calibration", str(mine), "--review-cost", "1", "--error-cost", "30") == 0
    out = capsys.readouterr().out
    parts = ["mine.csv: 1,700 answers", "Read 'score' as confidence, 'label' as correct, 'lang' as cohort"]
    parts += ["What matters here is", "calibration error (ECE)", "discrimination (AUROC)", "cheapest", "cost of 1,000"]
    for part in [*parts, "By cohort", "mine-calibration.png"]:
        assert part in out
    assert (mine.parent / "mine-calibration.png").stat().st_size > 10_000
    first = out
    assert typed("calibration", str(mine), "--review-cost", "1", "--error-cost", "30") == 0
    assert capsys.readouterr().out == first


def test_it_is_all_there_as_json(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = "confidence=score,correct=label"
    assert typed("calibration", str(mine), "--columns", columns, "--no-figures", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert not list(mine.parent.glob("*.png"))
    assert found["answers"] == 1700
    assert [cohort["name"] for cohort in found["cohorts"]] == ["de", "en"]
    assert sum(found["bins"]["answers"]) == 1700
    assert found["gates_quantile"][2]["share"] == 0.05
    left = [gate["errors_left"] for gate in found["gates_fixed"]]
    assert left == sorted(left, reverse=True)
    assert found["ece"]["low"] <= found["ece"]["estimate"] <= found["ece"]["high"]
    assert found["cheapest"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--review-cost 1", "--review-cost and --error-cost say what a gate costs together; give both"),
        ("--columns score", "--columns: expected WHAT=NAME with WHAT one of confidence, correct, wrong, cohort"),
        ("--columns confidence=scor", "no column 'scor'; did you mean 'score'"),
        ("--columns correct=label,wrong=label", "correct and wrong are the same said twice"),
        ("--columns confidence=score,cohort=score", "--columns: expected a column for each, got 'score' twice"),
        ("--figure there.txt", "--figure there.txt: expected a name that ends with .png"),
        ("--figure nowhere/there.png", "--figure nowhere/there.png: there is no folder nowhere"),
        ("--review-cost nan --error-cost 5", "--review-cost: expected a number, got nan"),
        ("--review-cost 1 --error-cost inf", "--error-cost: expected a number, got inf"),
    ],
)
def test_options_that_are_not_right_are_refused(
    args: str, said: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("calibration", str(mine), *args.split()) == 2
    assert said in capsys.readouterr().err


def test_files_without_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("confidence,correct\n0.9,1\n0.8,1\n")
    assert typed("calibration", str(path)) == 3
    assert "all 2 answers are right" in capsys.readouterr().err
    path.write_text("confidence,correct\n0.9,1\n0.8,perhaps\n")
    assert typed("calibration", str(path)) == 2
    assert "a.csv:3: correct: expected 1 or 0, true or false, got 'perhaps'" in capsys.readouterr().err
    path.write_text("confidence,correct\nnan,1\n0.8,maybe\n3,0\n")
    assert typed("calibration", str(path)) == 2
    assert [part.split(":")[1] for part in capsys.readouterr().err.split("; ") if "a.csv" in part] == ["2", "3", "4"]
    path.write_text("confidence,correct,confidence\n0.1,1,0.2\n")
    assert typed("calibration", str(path)) == 2
    assert "a.csv: expected columns of different names, got 'confidence' twice" in capsys.readouterr().err
    for name in ("none.csv", "none.parquet"):
        assert typed("calibration", str(tmp_path / name)) == 2
        assert f"{name}: cannot be read" in capsys.readouterr().err


def test_a_few_answers_are_enough_to_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("confidence,correct,cohort\n0.9,1,a\n0.2,0,b\n1,1,a\n0,0,b\n")
    assert typed("calibration", str(path)) == 0
    out = capsys.readouterr().out
    assert "rests on 2 wrong answers" in out
    assert "4 answers, 50% wrong, too few to tell" in out
    assert "Too few to tell: 2 wrong answers and 2 right ones." in out


def test_columns_that_were_not_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("confidence,wrong,team\n0.9,0,a\n0.2,1,b\n1,0,a\n0,1,b\n")
    assert typed("calibration", str(path), "--no-figures") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Read 'confidence' as confidence, 'wrong' as wrong; --columns says otherwise." in said
    assert "Not used: team; --columns cohort=team looks at each of its values." in said
    assert typed("calibration", str(path), "--no-figures", "--columns", "cohort=team") == 0
    assert "Not used" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a.csv: is empty"),
        ("confidence,correct\n", "a.csv: holds no answers, only the names of its columns"),
        (
            "confidence,correct\n90,1\n87.5,0\n1,1\n",
            "confidence: expected confidences from 0 to 1, but most are",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_one_sentence(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert typed("calibration", str(path)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
