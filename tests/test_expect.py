"""What a scenario expects of alert rules, and the commands that make its faults happen elsewhere."""

import pytest

from sim.cli import main
from sim.errors import ScenarioError
from sim.scenario import dump, loads, points
from sim.scenario.expect import Fires

TEXT = """
name: a
duration: 20m
fleet: {kv_blocks: 99, step_time: {linear: {base: 10ms}}}
workload: {rate_per_s: 1, cohorts: {a: {prompt_tokens: 9, output_tokens: 9}}}
faults:
- {slow: main, factor: 2, from: 5m, to: 6m, start_cmd: "kubectl drain", stop_cmd: "kubectl uncordon"}
expect: {Grows: {fires: 12m-16m}, Drops: silent, "Any name": {fires: 0-5.5m, pending: 500ms - 4m}}
"""


def test_expectations_are_read_written_and_read_again() -> None:
    scenario = loads(TEXT)
    assert scenario.expect == {
        "Grows": Fires(fires="12m-16m"),  # type: ignore[arg-type]
        "Drops": "silent",
        "Any name": Fires(fires="0-330s", pending="0.5s-240s"),  # type: ignore[arg-type]
    }
    assert scenario.expect["Grows"].fires == (720, 960)  # type: ignore[union-attr]
    assert loads(dump(scenario)) == scenario
    assert points(loads(TEXT + "vary: {workload.rate_per_s: [1, 2]}\n"))[1][1].expect == scenario.expect


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("12m-16m", "12m", "8: expect.Grows.fires: expected from when to when, such as 12m-16m, got '12m'"),
        ("12m-16m", "16m-12m", "expect.Grows.fires: expected from when to when, such as 12m-16m, the end after"),
        ("12m-16m", "5", "expect.Grows.fires: expected from when to when, such as 12m-16m, got 5"),
        ("12m-16m", "a-b", "expect.Grows.fires: expected from when to when, such as 12m-16m, got 'a-b'"),
        ("silent", "quiet", "expect.Drops: expected silent or {fires: 12m-16m}, got 'quiet'"),
        ("{fires: 12m-16m}", "{fire: 12m-16m}", "expect.Grows.fire: unknown key; did you mean 'fires'?"),
        ("{fires: 12m-16m}", "{}", "expect.Grows.fires: missing, expected from when to when it must begin to fire"),
        ("12m-16m", "25m-26m", "expected to begin before the run ends (1200 s), got 1500 s"),
        ("500ms - 4m", "6m-7m", "expect.Any name.pending: expected to begin before the end of fires"),
        ('"Any name"', '" "', "expected the name of an alert rule, got ' '"),
        ('start_cmd: "kubectl drain", ', "", "faults[0].stop_cmd: expected a start_cmd beside it"),
        ("kubectl drain", "", "faults[0].start_cmd: expected a text that is not empty"),
        (
            'to: 6m, start_cmd: "kubectl drain", stop_cmd: "kubectl uncordon"}',
            "mtbf: 5m, mttr: 1m, start_cmd: x}}",
            "faults[0].random.start_cmd: expected none for what comes at random or periodically",
        ),
    ],
)
def test_mistakes_are_said_with_their_place(right: str, wrong: str, said: str) -> None:
    assert right in TEXT
    text = TEXT.replace(right, wrong)
    if "mtbf" in wrong:
        text = text.replace("- {slow", "- {random: {slow")
    with pytest.raises(ScenarioError) as error:
        loads(text)
    assert said in str(error.value)


def test_a_rule_that_there_is_not_is_no_expectation(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(tmp_path))
    with open("r.yml", "w") as file:
        file.write("groups: [{name: g, rules: [{alert: Grows, expr: up == 0}]}]")
    with open("a.yaml", "w") as file:
        file.write(TEXT + "alerts: r.yml\nslo: {errors: 1%}\n")
    with pytest.raises(SystemExit) as ended:
        main(["check", "a.yaml"])
    assert ended.value.code == 2
    assert "expect.Any name: no alert rule 'Any name', expected one of Grows" in capsys.readouterr().err
