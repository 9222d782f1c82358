"""Load tests of what is guarded: TLS with an authority of one's own, keys from the environment, a Prometheus to ask."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gevent")

from sim.records import Outcome
from sim.results import Run
from tests import real_prometheus
from tests.load_target import target, typed

RUN = ["load", "run", "--rate", "5", "--duration", "3s", "--prompt-tokens", "24", "--output-tokens", "6",
       "--no-figures"]  # fmt: skip
KEY = "sk-very-secret"


def authority(folder: Path, name: str) -> Path:
    """Make an authority and a certificate of it for 127.0.0.1: NAME.pem, and NAME-server.pem with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make certificates with")
    extension = folder / f"{name}.ext"
    extension.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    key = ["-newkey", "rsa:2048", "-nodes"]
    ca, server = str(folder / name), str(folder / f"{name}-server")
    for words in (
        ["req", "-x509", *key, "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem"],
        ["req", *key, "-subj", "/CN=127.0.0.1", "-keyout", f"{server}.key", "-out", f"{server}.csr"],
        ["x509", "-req", "-in", f"{server}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days",
         "2", "-extfile", str(extension), "-out", f"{server}.pem"],
    ):  # fmt: skip
        subprocess.run([openssl, *words], check=True, capture_output=True, timeout=60)
    return folder / f"{name}.pem"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities, ours.pem and theirs.pem."""
    folder = tmp_path_factory.mktemp("authorities")
    for name in ("ours", "theirs"):
        authority(folder, name)
    return folder


@pytest.fixture(scope="module")
def guarded(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that speaks TLS with a certificate of ours, and wants the key."""
    tls = ["--tls", str(made / "ours-server.pem"), str(made / "ours-server.key")]
    with target(tmp_path_factory.mktemp("guarded"), *tls, "--key", KEY) as url:
        assert url.startswith("https://")
        yield url


def all_text(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("how", "environment"),
    [([], {"BLOWOUT_API_KEY": KEY}), (["--header", "Authorization: env:TEAM"], {"TEAM": f"Bearer {KEY}"})],
)
def test_the_right_authority_and_key(
    how: list[str], environment: dict[str, str], made: Path, guarded: str, tmp_path: Path
) -> None:
    words = [*RUN, "--url", guarded, "--ca", str(made / "ours.pem"), "--out", "r", *how]
    done = typed(words, tmp_path, **environment)
    assert done.returncode in (0, 3), done.stderr  # 3: this machine is too busy for a tester
    (member,) = Run.open(tmp_path / "r").members
    assert set(member.attempts()["outcome"].to_pylist()) == {int(Outcome.OK)}
    ups = [values for one, _, values in member.metrics() if one["__name__"] == "up" and one["job"] == "vllm"]
    assert len(ups) == 1
    assert (ups[0] == 1).all(), "its /metrics is read with the same authority and key"
    assert KEY not in all_text(tmp_path / "r")


def test_a_header_from_a_file(made: Path, guarded: str, tmp_path: Path) -> None:
    (tmp_path / "auth").write_text(f"Bearer {KEY}\n")
    words = [*RUN, "--url", guarded, "--ca", str(made / "ours.pem"), "--out", "r", "--header", "Authorization: @auth"]
    done = typed([*words, "--max-requests", "2"], tmp_path)
    assert done.returncode in (0, 3), done.stderr
    assert KEY not in all_text(tmp_path / "r")


@pytest.mark.parametrize(
    ("authority", "key", "code", "said"),
    [
        ("theirs.pem", KEY, 4, "its certificate is not trusted"),
        (None, KEY, 4, "name its authority with --ca FILE"),
        ("theirs.ext", KEY, 2, "expected certificates in PEM"),
        ("nothing.pem", KEY, 2, "nothing.pem"),
        ("ours.pem", "sk-wrong", 4, "key"),
        ("ours.pem", "", 4, "key"),
    ],
)
def test_the_wrong_one_is_a_sentence(
    authority: str | None, key: str, code: int, said: str, made: Path, guarded: str, tmp_path: Path
) -> None:
    trusted = [] if authority is None else ["--ca", str(made / authority)]
    done = typed([*RUN, "--url", guarded, *trusted, "--out", "r"], tmp_path, OPENAI_API_KEY=key)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()
    assert not key or key not in done.stderr


def test_what_a_real_prometheus_scraped_is_asked_for(tmp_path: Path) -> None:
    with target(tmp_path) as url:
        config = (
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: engines, static_configs: [{{targets: ['{url.removeprefix('http://')}']}}]}}]\n"
        )
        with real_prometheus.running(tmp_path, config) as server:
            words = [*RUN, "--url", url, "--prometheus-url", server.url, "--duration", "8s", "--out", "r"]
            done = typed(words, tmp_path)
            assert done.returncode in (0, 3), done.stderr
    (member,) = Run.open(tmp_path / "r").members
    assert member.info["metrics"]["kv_mean"] == pytest.approx(0.25)
    assert member.info["metrics"]["running_mean"] == pytest.approx(1.0)
    found = {one["__name__"]: (one, t_ms) for one, t_ms, _ in member.metrics() if one.get("job") == "engines"}
    labels, t_ms = found["vllm:kv_cache_usage_perc"]
    assert labels["instance"] == url.removeprefix("http://")
    assert "up" in found
    assert 0 <= t_ms.min() < t_ms.max() <= 60_000, "times of the run, not of the calendar"
    assert (np.diff(t_ms) > 500).all()


def test_a_prometheus_that_is_not_there_is_a_sentence_and_keeps_the_rows(tmp_path: Path) -> None:
    with target(tmp_path) as url:
        done = typed([*RUN, "--url", url, "--prometheus-url", "http://127.0.0.1:9", "--out", "r"], tmp_path)
    assert done.returncode == 4, done.stderr
    assert "http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
