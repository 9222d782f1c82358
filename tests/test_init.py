"""`blowout init`: what users already run becomes a commented scenario, and nothing is invented in silence."""

import csv
import http.server
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from sim.engine.hardware import resolve
from sim.errors import EndpointError, InputError
from sim.init import describe
from sim.init.commandline import parse_vllm
from sim.init.complete import recognise
from sim.init.exposition import Histogram, Page, difference, histogram, parse
from sim.init.fit import fit_lengths
from sim.scenario import Pool, Scenario, StepTime, loads

EDGES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
STARTED_S = 1_700_000_000.0


def page(
    requests: int = 1000,
    *,
    model: str = "chat",
    waiting: int = 0,
    running: int = 0,
    started_s: float | None = STARTED_S,
    blocks: int = 5001,
    seed: int = 3,
) -> str:
    """A small /metrics page as vLLM writes it, after *requests* requests with lognormal lengths."""
    rng = np.random.default_rng(seed)
    labels = f'engine="0",model_name="{model}"'
    lines = ["# HELP vllm:request_success_total Count of successfully processed requests."]
    if started_s is not None:
        lines.append(f"process_start_time_seconds {started_s!r}")
    lines.append(f'vllm:request_success_total{{finished_reason="stop",{labels}}} {float(requests)}')
    lines.append(f'vllm:request_success_total{{finished_reason="abort",{labels}}} 0.0')
    lines.append(f"vllm:num_requests_running{{{labels}}} {running}\nvllm:num_requests_waiting{{{labels}}} {waiting}")
    lines.append(
        f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="True",engine="0",'
        f'gpu_memory_utilization="0.92",num_gpu_blocks="{blocks}"}} 1.0'
    )
    for name, middle, sigma in (("request_prompt_tokens", 400, 0.8), ("request_generation_tokens", 150, 0.6)):
        lengths = np.maximum(1, np.rint(rng.lognormal(math.log(middle), sigma, 200_000)[:requests]))
        lines += buckets(f"vllm:{name}", labels, lengths, EDGES)
    waits = rng.lognormal(math.log(0.08), 0.5, 200_000)[:requests]
    lines += buckets("vllm:time_to_first_token_seconds", labels, waits, [0.02, 0.04, 0.08, 0.1, 0.25, 0.5, 1.0])
    return "\n".join(lines) + "\n"


def buckets(name: str, labels: str, values: np.ndarray, edges: list[float]) -> list[str]:
    lines = [f'{name}_bucket{{{labels},le="{float(e)}"}} {float(np.sum(values <= e))}' for e in edges]
    lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {float(len(values))}')
    return [*lines, f"{name}_count{{{labels}}} {float(len(values))}", f"{name}_sum{{{labels}}} {float(np.sum(values))}"]


Answer = tuple[int, str, str]


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """Start a server here: ``server(answer)``, where ``answer(path, query, headers)`` gives status, type and text."""
    running = []

    def start(answer: Callable[[str, dict, dict], Answer]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                status, kind, text = answer(parts.path, parse_qs(parts.query), dict(self.headers))
                self.send_response(status)
                self.send_header("Location" if 300 <= status < 400 else "Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        running.append(httpd)
        return f"http://127.0.0.1:{httpd.server_address[1]}"

    yield start
    for httpd in running:
        httpd.shutdown()
        httpd.server_close()


def prometheus(pages: dict[str, str], asked: list[str] | None = None) -> Callable[[str, dict, dict], Answer]:
    """Answer instant queries as a Prometheus that scrapes *pages* by instance and began when they did."""

    def answer(path: str, query: dict, headers: dict) -> Answer:
        promql = query["query"][0]
        if asked is not None:
            asked.append(f"{path} {promql} {headers.get('Authorization', '')}".strip())
        name = re.sub(r"^increase\(|\[\d+s\]\)$", "", promql)
        found = []
        if name.startswith("max_over_time"):
            found = [{"metric": {"model_name": "chat"}, "value": [0, "7.25"]}]
        for instance, text in pages.items():
            for s in parse(text, instance).get(name):
                found.append({"metric": {**s.labels, "instance": instance}, "value": [0, repr(s.value)]})
        return (
            200,
            "application/json",
            json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}}),
        )

    return answer


def read(text: str) -> tuple[Scenario, Pool]:
    scenario = loads(text)
    return scenario, next(iter(scenario.fleet.pools.values()))


def marked(text: str) -> list[str]:
    """The lines with a value, but for the name, beside or above which no mark stands."""
    lines, missing = text.splitlines(), []
    for i, line in enumerate(lines):
        if not re.match(r"\s*[\w-]+: [^#]", line) or line.startswith("name: "):
            continue
        above = i
        while above > 0 and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        if not re.search(r"# (measured|derived|guessed): ", "\n".join(lines[above : i + 1])):
            missing.append(line)
    return missing


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("vllm serve m --tensor-parallel-size 2", "tensor_parallel", 2),
        ("vllm serve m -tp 4", "tensor_parallel", 4),
        ("vllm serve m -tp=4", "tensor_parallel", 4),
        ("vllm serve -tp 4 m", "model", "m"),
        ("vllm serve --enforce-eager m", "model", "m"),
        ("vllm serve m -dp 3", "replicas", 3),
        ("vllm serve m --max-num-seqs=128", "max_num_seqs", 128),
        ("vllm serve m --max_num_seqs 128", "max_num_seqs", 128),
        ("vllm serve m --max-num-batched-tokens 8k", "max_num_batched_tokens", 8000),
        ("vllm serve m --max-num-batched-tokens 8K", "max_num_batched_tokens", 8192),
        ("vllm serve m --max-model-len 25.6k", "max_model_len", 25600),
        ("vllm serve m --gpu-memory-utilization 0.85", "gpu_memory_utilization", 0.85),
        ("vllm serve m --gpu-memory-util 0.85", "gpu_memory_utilization", 0.85),
        ("vllm serve m --block-size 32", "block_size", 32),
        ("vllm serve m --num-gpu-blocks-override 64", "kv_blocks", 63),  # one is vLLM's null block
        ("vllm serve m --watermark 0.01", "watermark", 0.01),
        ("vllm serve m --no-enable-chunked-prefill", "chunked_prefill", False),
        ("vllm serve m --enable-chunked-prefill=False", "chunked_prefill", False),
        ("vllm serve m --enable-chunked-prefill", "chunked_prefill", True),
        ("vllm serve m --no-scheduler-reserve-full-isl", "reserve_full_isl", False),
        ("python3 -m vllm.entrypoints.openai.api_server --model org/m --port 8000", "model", "org/m"),
        ("python -m vllm.entrypoints.cli.main serve org/m", "model", "org/m"),
        ("VLLM_USE_V1=1 CUDA_VISIBLE_DEVICES=0,1 /opt/venv/bin/vllm serve org/m", "model", "org/m"),
        ("docker run --gpus all -v ./c:/c --name vllm vllm/vllm-openai:v0.11.0 --model org/m", "model", "org/m"),
        ("podman run example.org/team/vllm-cuda:3.2 --model=org/m -tp 2", "tensor_parallel", 2),
        ("vllm serve m \\\n  --max-num-seqs 8 \\\n  --port 1", "max_num_seqs", 8),
        ("vllm serve m --max-num-seqs 8 2>&1 | tee --max-num-seqs 9", "max_num_seqs", 8),
        ("--model m --max-num-seqs 8", "max_num_seqs", 8),
        ("vllm serve m -O3 --max-num-seqs 8", "max_num_seqs", 8),
        ("vllm serve m --served-model-name a b --max-num-seqs 8", "max_num_seqs", 8),
    ],
)
def test_a_flag_becomes_a_field(line: str, field: str, value: object) -> None:
    service = parse_vllm(line)
    assert service.pool[field].value == value
    assert service.unsupported == ([] if "eager" not in line else service.unsupported)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("vllm serve", "no model named"),
        ("vllm serve 'm", "no closing quotation"),
        ("vllm serve m --max-num-seqs many", "--max-num-seqs: expected a whole number of at least 1, got many"),
        ("vllm serve m --max-num-seqs 0", "expected a whole number of at least 1, got 0"),
        ("vllm serve m --max-num-seqs 1.5", "expected a whole number of at least 1, got 1.5"),
        ("vllm serve m --gpu-memory-utilization 90", "expected a share of memory above 0 and at most 1, got 90"),
        ("vllm serve m -tp", "--tensor-parallel-size: expected a whole number of at least 1, got nothing"),
        ("vllm serve m --watermark full", "expected a fraction from 0 to 1, got full"),
        ("docker run --gpus all busybox", "no vLLM image"),
    ],
)
def test_a_bad_command_line_is_one_sentence(line: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        parse_vllm(line)
    assert "\n" not in str(caught.value)


def test_what_is_not_simulated_is_named_in_the_file_and_in_the_notes() -> None:
    line = "vllm serve Qwen/Qwen3-8B -q fp8 -pp 2 --speculative-config.method ngram --made-up 3 --port 1 --dtype auto"
    text, notes = describe(vllm=line)
    for flag in ("--quantization", "--pipeline-parallel-size", "--speculative-config", "--made-up"):
        assert f"# not taken over: {flag}: " in text
        assert any(note.startswith(f"not taken over: {flag}: ") for note in notes)
    assert "--port" not in text
    assert "--dtype" not in text  # auto changes nothing


def test_secrets_of_a_command_line_are_not_written_down() -> None:
    text, notes = describe(vllm="HF_TOKEN=hf_hush vllm serve Qwen/Qwen3-8B --api-key sk-hush --hf-token=hush --x hush")
    assert "hush" not in text + "".join(notes)


def test_absent_flags_mean_the_defaults_of_vllm_on_that_hardware() -> None:
    _, big = read(describe(vllm="vllm serve Qwen/Qwen3-8B", hardware="h100")[0])
    _, small = read(describe(vllm="vllm serve Qwen/Qwen3-8B", hardware="A100")[0])
    assert (big.max_num_seqs, big.max_num_batched_tokens) == (1024, 8192)
    assert (small.max_num_seqs, small.max_num_batched_tokens) == (256, 2048)
    assert big.gpu_memory_utilization == 0.92


def test_without_chunked_prefill_a_prompt_fits_one_step() -> None:
    _, pool = read(describe(vllm="vllm serve Qwen/Qwen3-8B --no-enable-chunked-prefill --max-model-len 20000")[0])
    assert pool.max_num_batched_tokens == 20000
    line = "vllm serve Qwen/Qwen3-8B --no-enable-chunked-prefill --max-model-len 20000 --max-num-batched-tokens 2048"
    with pytest.raises(InputError, match="expected at least max_model_len"):
        describe(vllm=line)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("Qwen/Qwen3-32B-AWQ", "qwen3-32b"),
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("Qwen/Qwen3-80B", None),
        ("Qwen/Qwen2.5-7B", None),
    ],
)
def test_models_are_called_as_in_the_catalogue(name: str, known: str | None) -> None:
    fact = recognise(name)
    assert (fact and fact.value) == known


def test_an_unknown_model_is_replaced_by_the_nearest_and_says_so() -> None:
    text, notes = describe(vllm="vllm serve Qwen/Qwen2.5-72B-Instruct -tp 4")
    assert read(text)[1].model == "llama-3.1-70b"
    assert "# guessed: the nearest in size to Qwen/Qwen2.5-72B-Instruct" in text
    assert any("is not in the catalogue" in note for note in notes)


def test_sizes_come_from_a_config_json_at_hand(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
    more = {"intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192, "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, **more}))
    text, _ = describe(vllm=f"vllm serve {tmp_path}")
    assert read(text)[1].model == str(tmp_path / "config.json")


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_with_nothing_there_is_a_scenario_to_start_from() -> None:
    text, notes = describe()
    scenario, pool = read(text)
    assert scenario.name == "my-service"
    assert marked(text) == []
    assert "measured: " not in text.replace("measured (", "")
    assert any("guessed" in note for note in notes)
    assert resolve(pool, Path()).kv_blocks > 1000  # it can be played as it is


def test_every_value_says_how_it_is_known(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(page())
    text, _ = describe(vllm="vllm serve Qwen/Qwen3-8B --served-model-name chat -tp 2", metrics=[str(tmp_path / "a")])
    assert marked(text) == []
    assert max(map(len, text.splitlines())) <= 120


def test_a_name_is_made_a_slug() -> None:
    assert read(describe(name="My Chat: v2!")[0])[0].name == "my-chat-v2"
    assert read(describe(name="???")[0])[0].name == "my-service"


def test_what_comes_from_outside_cannot_end_a_comment(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(page(model=r"chat\nseed: 99\nname: x\" # "))
    text, _ = describe(metrics=[str(tmp_path / "a")])
    assert read(text)[0].seed == 1
    text, _ = describe(vllm="vllm serve 'm\nseed: 99'")
    assert read(text)[0].seed == 1


def test_step_times_that_nobody_tabulated_are_told() -> None:
    text, notes = describe(vllm="vllm serve meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 2")
    _, pool = read(text)
    assert pool.tensor_parallel == 2
    assert any("no step times are tabulated for llama-3.1-8b on h100 with tensor_parallel 2" in note for note in notes)
    if "grid" in StepTime.model_fields:  # the nearest are borrowed, and it can be played
        assert resolve(pool, Path()).kv_blocks > 1000
        assert "step_time: {grid: {tensor_parallel: 1}}" in text
    else:
        assert any(note.startswith("cannot be played yet") for note in notes)


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Llama-3.1-70B -tp 4", "Qwen3-32B -tp 2"])
def test_models_with_step_times_can_be_played_as_described(name: str) -> None:
    text, notes = describe(vllm=f"vllm serve org/{name}")
    assert resolve(read(text)[1], Path()).kv_blocks > 1000
    assert not any("cannot" in note for note in notes)


def test_hardware_is_one_of_the_catalogue() -> None:
    assert read(describe(hardware="h100_sxm")[0])[1].hardware == "h100"
    with pytest.raises(InputError, match="--hardware: "):
        describe(hardware="abacus")


# --- pages of metrics -------------------------------------------------------------------------------------------------


def test_the_text_format_is_read_with_its_corners() -> None:
    text = '# TYPE a counter\na{x="1",y="q\\"\\\\\\n}",} 1.5 1700000000\nb +Inf\nc{} NaN\nd 2 # {id="x"} 3\n\n# EOF\n'
    found = parse(text, "p")
    (a,) = found.get("a")
    assert a.labels == {"x": "1", "y": 'q"\\\n}'}
    assert a.value == 1.5
    assert found.total("b") == math.inf
    assert found.total("c") == 0.0
    assert found.total("d") == 2.0


@pytest.mark.parametrize(
    "line", ["a", "a{x=1} 2", "a{x='1'} 2", 'a{x="1" y="2"} 3', "a 1_0", "1a 2", 'a{x="1",x="2"} 3']
)
def test_a_line_that_is_no_sample_is_named(line: str) -> None:
    with pytest.raises(InputError, match=r"page.txt, line 2: expected a Prometheus sample .*got: "):
        parse(f"ok 1\n{line}\n", "page.txt")


def test_histograms_with_different_buckets_keep_the_edges_that_all_have() -> None:
    rows = {"a": ((1, 2), (2, 6), (5, 8), (math.inf, 10)), "b": ((1, 1), (2, 2), (math.inf, 4))}
    lines = [f'h_bucket{{i="{i}",le="{le}"}} {n}' for i, series in rows.items() for le, n in series]
    found = histogram(parse("\n".join(lines), "p"), "h")
    assert found is not None
    assert (found.edges, found.counts, found.count) == ((1.0, 2.0), (3.0, 8.0), 14.0)
    assert histogram(Page([]), "h") is None


def test_quantiles_are_those_of_prometheus() -> None:
    h = Histogram((1.0, 2.0, 4.0), (0.0, 50.0, 90.0), 100.0, 250.0)
    assert h.quantile(0.25) == 1.5
    assert h.quantile(0.7) == 3.0
    assert h.quantile(0.99) == 4.0  # beyond the last finite edge


def test_a_restart_between_two_pages_is_seen() -> None:
    assert difference(parse("a_total 1", "p"), parse("a_total 5", "p")) is None
    gained = difference(parse("a_total 7\ng 1", "p"), parse("a_total 5\ng 4", "p"))
    assert gained is not None
    assert (gained.total("a_total"), gained.total("g")) == (2.0, 1.0)


@pytest.mark.parametrize(("middle", "sigma"), [(300, 0.7), (45, 0.8), (12, 0.5), (1500, 0.25)])
def test_a_lognormal_is_found_again_in_its_buckets(middle: float, sigma: float) -> None:
    lengths = np.maximum(1, np.rint(np.random.default_rng(1).lognormal(math.log(middle), sigma, 20_000)))
    found = histogram(parse("\n".join(buckets("h", 'a="b"', lengths, EDGES)), "p"), "h")
    assert found is not None
    fit = fit_lengths(found)
    assert fit is not None
    assert fit.median == pytest.approx(middle, rel=0.03)
    assert fit.sigma == pytest.approx(sigma, rel=0.05)
    assert fit.cdf_error < 0.01
    assert abs(fit.mean_error) < 0.03
    assert fit.max is not None
    assert fit.max >= lengths.max()


def test_few_buckets_are_filled_up_with_the_mean() -> None:
    one = fit_lengths(Histogram((100.0, 200.0, 500.0), (0.0, 0.0, 80.0), 80.0, 80 * 256.0))
    assert one is not None
    assert (one.median, one.sigma) == (256.0, 0.0)
    two = fit_lengths(Histogram((100.0, 200.0, 500.0), (0.0, 30.0, 80.0), 80.0, 80 * 230.0))
    assert two is not None
    assert two.mean_error == pytest.approx(0, abs=0.02)
    assert two.cdf_error < 0.03
    assert fit_lengths(Histogram((100.0,), (0.0,), 0.0, 0.0)) is None


def test_a_bad_fit_is_called_one(tmp_path: Path) -> None:
    lengths = np.concatenate([np.full(500, 15.0), np.full(500, 1800.0)])
    kept = [line for line in page().splitlines() if "request_prompt_tokens" not in line]
    labels = 'engine="0",model_name="chat"'
    (tmp_path / "a").write_text("\n".join([*kept, *buckets("vllm:request_prompt_tokens", labels, lengths, EDGES)]))
    assert "a poor fit" in describe(metrics=[str(tmp_path / "a")])[0]


def test_one_page_gives_cache_and_lengths_and_a_rate_that_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(page(2000, started_s=time.time() - 1000))
    text, _ = describe(metrics=[str(tmp_path / "a")], hardware="h200")
    scenario, pool = read(text)
    assert (pool.kv_blocks, pool.block_size, pool.gpu_memory_utilization) == (5000, 16, 0.92)
    assert scenario.workload.rate_per_s == pytest.approx(2.0, rel=0.02)
    assert re.search(r"# guessed: 2,000 requests since the server started", text)
    prompt = scenario.workload.cohorts["all"].prompt_tokens
    assert prompt.lognormal.median == pytest.approx(400, rel=0.06)
    assert "measured: TTFT P50" in text


def test_without_a_start_the_rate_stays_a_guess(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(page(started_s=None))
    text, notes = describe(metrics=[str(tmp_path / "a")])
    assert read(text)[0].workload.rate_per_s == 1.0
    assert any("rate_per_s" in note for note in notes)


@pytest.mark.parametrize("started_s", [STARTED_S, None])
def test_a_pair_of_pages_gives_a_measured_rate(tmp_path: Path, started_s: float | None) -> None:
    (tmp_path / "a").write_text(page(1000, waiting=2, running=3, started_s=started_s))
    (tmp_path / "b").write_text(page(1300, waiting=20, running=15, started_s=started_s))
    text, _ = describe(metrics=[str(tmp_path / "b"), str(tmp_path / "a")], over_s="1m")  # in any order
    assert read(text)[0].workload.rate_per_s == pytest.approx((300 + 30) / 60, rel=1e-3)  # 30 more are inside
    assert "# measured: 330 requests between two scrapes 60 s apart" in text
    assert read(text)[1].replicas == 1


def test_pages_of_two_servers_are_two_replicas(tmp_path: Path) -> None:
    now = time.time()
    (tmp_path / "a").write_text(page(1000, started_s=now - 1000))
    (tmp_path / "b").write_text(page(3000, started_s=now - 2000, blocks=4001))
    text, _ = describe(metrics=[str(tmp_path / "a"), str(tmp_path / "b")])
    scenario, pool = read(text)
    assert pool.replicas == 2
    assert scenario.workload.rate_per_s == pytest.approx(2.5, rel=0.02)
    assert "replicas differ" in text


def test_two_models_are_two_pools(tmp_path: Path) -> None:
    now = time.time()
    (tmp_path / "a").write_text(page(1000, model="org/llama-3.1-8b", started_s=now - 1000))
    (tmp_path / "b").write_text(page(3000, model="org/qwen3-8b", started_s=now - 1001))
    text, _ = describe(metrics=[str(tmp_path / "a"), str(tmp_path / "b")])
    scenario = loads(text)
    assert {name: pool.model for name, pool in scenario.fleet.pools.items()} == {
        "qwen3-8b": "qwen3-8b",
        "llama-3-1-8b": "llama-3.1-8b",
    }
    assert scenario.workload.cohorts["qwen3-8b"].share == pytest.approx(0.75, rel=0.01)
    assert scenario.workload.cohorts["llama-3-1-8b"].pool == "llama-3-1-8b"
    assert marked(text) == []
    with pytest.raises(InputError, match="--vllm serves other, but the metrics are of"):
        describe(vllm="vllm serve other", metrics=[str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_running_server_is_believed_and_the_difference_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(page())
    line = "vllm serve Qwen/Qwen3-8B --served-model-name chat --block-size 32 --max-num-seqs 64"
    text, notes = describe(vllm=line, metrics=[str(tmp_path / "a")])
    _, pool = read(text)
    assert (pool.model, pool.block_size, pool.max_num_seqs) == ("qwen3-8b", 16, 64)
    assert "block_size: 32 on the command line, 16 in the metrics, which is used" in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!DOCTYPE html><html>sign in</html>", "web page"),
        ("", "expected metrics of vLLM"),
        ("go_goroutines 3\n", "expected metrics of vLLM"),
        ('{"status": "success"}', "line 1: expected a Prometheus sample"),
    ],
)
def test_a_file_that_is_no_page_of_vllm_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(InputError, match=said):
        describe(metrics=[str(tmp_path / "a")])


def test_a_missing_file_and_a_bad_duration_are_one_sentence() -> None:
    with pytest.raises(InputError, match="nowhere.txt: No such file"):
        describe(metrics=["nowhere.txt"])
    with pytest.raises(InputError, match="--over: expected a duration"):
        describe(over_s="soon")
    with pytest.raises(InputError, match="--range: expected a duration"):
        describe(range_="1 fortnight")


def test_a_page_of_a_real_server(measured: Path) -> None:
    source = measured / "vllm-cpu" / "metrics_example.txt"
    if not source.is_file():
        pytest.skip("no page of a real server beside the repository")
    text, notes = describe(metrics=[str(source)])
    scenario, pool = read(text)
    assert (pool.kv_blocks, pool.block_size, pool.max_model_len, pool.replicas) == (63, 32, 1024, 1)
    assert pool.model is None  # 38M random parameters: no catalogue knows them, so step times come from the page
    assert pool.step_time is not None
    assert 0.010 < pool.step_time.linear.base < 0.025  # the notes say 9 to 23 ms by batch, quiet
    assert resolve(pool, Path()).kv_blocks == 63
    assert marked(text) == []
    assert any("tiny" in note for note in notes)
    cohort = scenario.workload.cohorts["all"]
    rows = [r for level in ("B2_r2.25", "B3_r3", "B4_r4") for r in rows_of(measured, level)]
    for dist, column in ((cohort.prompt_tokens, "prompt_tokens"), (cohort.output_tokens, "output_tokens_req")):
        assert dist.lognormal.median == pytest.approx(median(int(r[column]) for r in rows), rel=0.1)


def rows_of(measured: Path, level: str) -> list[dict[str, str]]:
    with (measured / "vllm-cpu" / f"{level}.requests.csv").open() as file:
        return list(csv.DictReader(file))


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_server_is_scraped_twice(server: Callable[..., str]) -> None:
    began, paths, at_s = time.time(), [], []

    def answer(path: str, query: dict, headers: dict) -> Answer:
        paths.append(path)
        at_s.append(time.monotonic())
        return 200, "text/plain", page(1000 + int(400 * (len(paths) - 1)), started_s=began - 100)

    text, _ = describe(metrics=[server(answer)], over_s=0.25)
    assert paths == ["/metrics", "/metrics"]
    assert read(text)[0].workload.rate_per_s == pytest.approx(400 / (at_s[1] - at_s[0]), rel=0.3)
    assert "# measured: 400 requests between two scrapes" in text


def test_an_idle_server_falls_back_on_what_it_did_before(server: Callable[..., str]) -> None:
    began = time.time() - 1000
    text, _ = describe(
        metrics=[server(lambda *_: (200, "text/plain", page(started_s=began))) + "/metrics"], over_s=0.05
    )
    assert read(text)[0].workload.rate_per_s == pytest.approx(1.0, rel=0.02)
    assert "# derived: 1,000 requests since the server started" in text


def test_prometheus_knows_rates_lengths_and_replicas(
    server: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOWOUT_PROMETHEUS_TOKEN", "hush\n")
    asked: list[str] = []
    base = server(prometheus({"a:8000": page(1000), "b:8000": page(3000, seed=4)}, asked))
    text, _ = describe(
        prometheus=f"{base}/prom/", range_="30m", vllm="vllm serve Qwen/Qwen3-8B --served-model-name chat"
    )
    scenario, pool = read(text)
    assert scenario.workload.rate_per_s == pytest.approx(4000 / 1800, rel=1e-3)
    assert (pool.replicas, pool.kv_blocks, pool.model) == (2, 5000, "qwen3-8b")
    assert scenario.workload.cohorts["all"].output_tokens.lognormal.median == pytest.approx(150, rel=0.05)
    assert "# measured: 4,000 requests over the last 1800s in Prometheus" in text
    assert "busiest five minutes: 7.25" in text
    assert marked(text) == []
    assert asked[0] == "/prom/api/v1/query increase(vllm:request_success_total[1800s]) Bearer hush"
    assert "hush" not in text


def test_pages_fill_in_what_prometheus_does_not_have(server: Callable[..., str], tmp_path: Path) -> None:
    without = "\n".join(line for line in page(1000).splitlines() if "cache_config_info" not in line)
    (tmp_path / "a").write_text(page(77))
    text, _ = describe(prometheus=server(prometheus({"a:8000": without})), metrics=[str(tmp_path / "a")])
    scenario, pool = read(text)
    assert pool.kv_blocks == 5000
    assert scenario.workload.rate_per_s == pytest.approx(1000 / 3600, rel=1e-3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, "text/plain", "no"), "answered 401, not authorised; for Prometheus set BLOWOUT_PROMETHEUS_TOKEN"),
        ((403, "text/plain", "no"), "answered 403"),
        ((404, "text/plain", "no"), "answered 404"),
        ((200, "text/html", "<html>sign in</html>"), "web page"),
        ((200, "text/plain", "hello"), "answer with JSON|expected a Prometheus sample"),
        ((200, "application/json", '{"status": "success", "data": []}'), "JSON|sample"),
        ((200, "application/json", '{"status": "error", "error": "too many samples"}'), "too many samples|sample"),
        ((422, "application/json", '{"status": "error", "error": "parse error"}'), r"parse error\)|answered 422"),
    ],
)
@pytest.mark.parametrize("option", ["metrics", "prometheus"])
def test_a_server_that_answers_something_else_is_one_sentence(
    server: Callable[..., str], option: str, answer: Answer, said: str
) -> None:
    base = server(lambda *_: answer)
    with pytest.raises(EndpointError, match=said) as caught:
        describe(**{option: base if option == "prometheus" else [base]})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_prometheus_without_vllm_and_no_server_at_all(server: Callable[..., str]) -> None:
    with pytest.raises(EndpointError, match="does it scrape vLLM"):
        describe(prometheus=server(prometheus({})))
    with pytest.raises(EndpointError, match="could not be reached"):
        describe(prometheus="http://127.0.0.1:9")
    with pytest.raises(InputError, match="expected a URL like http"):
        describe(metrics=["ftp://127.0.0.1/metrics"])
    with pytest.raises(InputError, match="expected a URL like http"):
        describe(prometheus="localhost:9090")


def test_a_token_does_not_follow_a_redirect(server: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOWOUT_PROMETHEUS_TOKEN", "hush")
    seen: list[dict] = []

    def stranger(path: str, query: dict, headers: dict) -> Answer:
        seen.append(headers)
        return 200, "text/html", "<html></html>"

    other = server(stranger)
    with pytest.raises(EndpointError):
        describe(prometheus=server(lambda *_: (302, f"{other}/login", "")))
    assert seen
    assert all("Authorization" not in headers for headers in seen)


def test_passwords_in_an_address_are_used_and_not_shown(server: Callable[..., str]) -> None:
    seen: list[str] = []

    def answer(path: str, query: dict, headers: dict) -> Answer:
        seen.append(headers.get("Authorization", ""))
        return 404, "text/plain", ""

    with pytest.raises(EndpointError) as caught:
        describe(metrics=[server(answer).replace("//", "//me:hush@")])
    assert seen == ["Basic bWU6aHVzaA=="]
    assert "hush" not in str(caught.value)
