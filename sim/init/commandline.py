"""vLLM's command line, read as vLLM reads it, into the fields of a pool."""

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from sim.errors import InputError
from sim.init.facts import Fact, Service, derived, measured
from sim.init.flags import FIELDS, MANY, SHORT, SILENT, SWITCHES, UNSUPPORTED

_STOP = re.compile(r"\|\|?|&&?|;|\d?>>?.*|<")
_ENTRY = re.compile(r"vllm\.entrypoints\..*|.*api_server(\.py)?")
_IMAGE = re.compile(r"[\w.:/-]+/vllm[\w.-]*(:[\w.-]+)?(@sha256:\w+)?")
_KNOWN = {*FIELDS, *UNSUPPORTED, *SWITCHES, *SILENT}
_FALSE = {"false", "0", "no", "off"}


def parse_vllm(text: str) -> Service:
    """Read the command line of a vLLM server.

    Forms: `vllm serve MODEL ...`, `python -m vllm.entrypoints... --model MODEL ...`, a container with one of them,
    or the arguments alone. Flags may be short, abbreviated, written with underscores, `=` or `--no-`. Raises
    InputError when quotes do not close, no model is named, or a value is not what its flag takes.
    """
    service = Service()
    for flag, values in _options(_arguments(text)):
        positive = "--" + flag[5:] if flag.startswith("--no-") else flag
        if positive in FIELDS:
            field, kind = FIELDS[positive]
            fact = _KINDS[kind](flag, values) if flag == positive else measured(False, flag)
            if fact is not None:
                service.pool[field] = _usable(field, fact)
        elif flag == "--served-model-name":
            service.aliases = tuple(values)
        elif _matters(flag, values):
            service.unsupported.append((flag, UNSUPPORTED[flag]))
        elif positive not in _KNOWN:
            service.unsupported.append((flag, "not known here: it changed nothing below"))
    if "model" not in service.pool:
        raise InputError("--vllm: no model named; expected a line like 'vllm serve meta-llama/Llama-3.1-8B-Instruct'")
    model = str(service.pool["model"].value)
    service.name = service.aliases[0] if service.aliases else model
    service.aliases = (*service.aliases, model)
    return service


def _arguments(text: str) -> list[str]:
    """Split as a shell would, and keep what follows the launcher, up to a pipe or a redirection."""
    try:
        words = shlex.split(re.sub(r"\\\r?\n", " ", text), comments=True)
    except ValueError as error:
        raise InputError(f"--vllm: {str(error).lower()}; expected a command line as a shell would take it") from None
    words = words[: next((i for i, word in enumerate(words) if _STOP.fullmatch(word)), len(words))]
    for i, word in enumerate(words):
        serve = word == "serve" and i > 0 and words[i - 1].rsplit("/", 1)[-1] == "vllm"
        if serve or _ENTRY.fullmatch(word):
            rest = words[i + 1 :]
            return rest[1:] if rest[:1] == ["serve"] else rest
    while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
        words = words[1:]
    if words and words[0] in ("docker", "podman", "nerdctl"):  # the entry point of the image is vLLM's server
        images = [i for i, word in enumerate(words) if _IMAGE.fullmatch(word) and not words[i - 1].startswith("-v")]
        if not images:
            raise InputError("--vllm: no vLLM image in this container's command; expected vLLM's arguments alone")
        return words[images[0] + 1 :]
    return words


def _options(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (long flag, its values): underscores are dashes, `=` is a space, `-tp` is written out."""
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        if not _is_flag(word):
            yield "--model", [word]  # the positional argument of `vllm serve`
            continue
        flag, equals, value = word.partition("=")
        if re.fullmatch(r"-O\w+", flag):  # -O3 is -O 3
            flag, equals, value = "-O", "=", flag[2:]
        flag = _whole(SHORT.get(flag, flag).split(".")[0].replace("_", "-"))
        values = [value] if equals else []
        while not equals and at < len(words) and not _is_flag(words[at]) and _takes(flag, len(values), words[at]):
            values.append(words[at])
            at += 1
        yield flag, values


def _takes(flag: str, taken: int, word: str) -> bool:
    """Tell whether *word* is a value of *flag* after *taken* others, and not the model's name."""
    if flag in SWITCHES or flag.startswith("--no-"):
        return taken == 0 and word.lower() in {"true", *_FALSE}
    return taken == 0 or flag in MANY or flag not in _KNOWN


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not re.match(r"-\.?\d", word) and word != "-"


def _whole(flag: str) -> str:
    """Write out an abbreviation, as argparse does when only one flag begins so."""
    begins = [known for known in _KNOWN if known.startswith(flag)]
    return begins[0] if flag not in _KNOWN and len(begins) == 1 and len(flag) > 5 else flag


def _matters(flag: str, values: list[str]) -> bool:
    """Tell whether an unsupported flag really changes something: `--dtype auto` or one pipeline stage do not."""
    harmless = {"auto", "none", "bfloat16", "half", "float16", "generate", "fcfs", "balanced", "1", "0"}
    return flag in UNSUPPORTED and not (values and values[0].lower() in harmless)


def _one(flag: str, values: list[str], what: str) -> str:
    if len(values) != 1:
        got = "nothing" if not values else " ".join(values)
        raise InputError(f"--vllm: {flag}: expected {what}, got {got}")
    return values[0]


def _text(flag: str, values: list[str]) -> Fact:
    return measured(_one(flag, values, "one name or path"), f"{flag} of the command line")


def _count(flag: str, values: list[str]) -> Fact:
    word = _one(flag, values, "a whole number of at least 1")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", word)
    # vLLM's human_readable_int: small letters are decimal, capitals binary.
    scale = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    number = float(match[1]) * scale[match[2]] if match else 0.0
    if number < 1 or number != int(number):
        raise InputError(f"--vllm: {flag}: expected a whole number of at least 1, got {word}")
    return measured(int(number), f"{flag} {word}")


def _length(flag: str, values: list[str]) -> Fact | None:
    # -1 and `auto` let vLLM choose the longest context that fits.
    return None if values and values[0].lower() in ("auto", "-1") else _count(flag, values)


def _share(flag: str, values: list[str]) -> Fact:
    word = _one(flag, values, "a share of memory above 0 and at most 1")
    number = _float(word)
    if number is None or not 0 < number <= 1:
        raise InputError(f"--vllm: {flag}: expected a share of memory above 0 and at most 1, got {word}")
    return measured(number, f"{flag} {word}")


def _fraction(flag: str, values: list[str]) -> Fact:
    word = _one(flag, values, "a fraction from 0 to 1")
    number = _float(word)
    if number is None or not 0 <= number < 1:
        raise InputError(f"--vllm: {flag}: expected a fraction from 0 to 1, got {word}")
    return measured(number, f"{flag} {word}")


def _switch(flag: str, values: list[str]) -> Fact:
    return measured(not (values and values[0].lower() in _FALSE), " ".join([flag, *values]))


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _usable(field: str, fact: Fact) -> Fact:
    if field == "kv_blocks":  # block 0 is vLLM's null block (vllm/v1/core/block_pool.py)
        return derived(max(fact.value - 1, 1), f"{fact.why}, less the null block that vLLM never hands out")
    if field == "replicas":
        return derived(fact.value, f"{fact.why}: each rank has a queue and a KV cache of its own")
    return fact


_KINDS: dict[str, Callable[[str, list[str]], Any]] = {
    "text": _text,
    "count": _count,
    "length": _length,
    "share": _share,
    "fraction": _fraction,
    "switch": _switch,
}
