"""Everything that needs a GPU, in one table: `make gpu-check`, or `python -m benchmarks.gpu [--case search] [--json]`.

Cases, each in a process of its own, so that one that fails leaves the others a clean device:
    equality   hits of the device's search engines against FAISS on the CPU, to the last byte
    search     2,048 queries against 1 and 4 million items: share of the matrix rate, against matmul + torch.topk
    embedding  MiniLM- and BERT-base-sized models in bfloat16: share of the matrix rate, against sentence-transformers where
               it is installed; a pack that does not fit the memory
    training   the same, for float32, bfloat16 and float16 with τ 0.01, ZeRO 0 to 3 and GradCache over NCCL with one rank;
               the first loss against the CPU's
    demo       the whole loop

Without a GPU it says so and ends with 0. `--device cpu --quick` tries the script itself where there is none.
Weights are random: nothing is downloaded. It takes under 12 minutes on an H200-class GPU. Exit code 1: something failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.demo import case_demo
from benchmarks.gpu.device import describe_device, matrix_rate
from benchmarks.gpu.embedding import case_embedding
from benchmarks.gpu.search import case_equality, case_search
from benchmarks.gpu.training import case_training
from benchmarks.shared.command import Row, chosen_cases, make_parser

CASES: dict[str, Callable[..., list[Row]]] = {
    "equality": case_equality,
    "search": case_search,
    "embedding": case_embedding,
    "training": case_training,
    "demo": case_demo,
}
LIMIT_S = 240
"""Of one case."""


def run_case(name: str, device: str, *, quick: bool) -> list[Row]:
    """The rows of a case; if its process fails or hangs, one row that says so."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--case", name, "--device", device, "--here", "--json"]
    started = time.perf_counter()
    try:
        done = subprocess.run(command + ["--quick"] * quick, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return [{"case": name, "passed": False, "failed": f"took more than {LIMIT_S} s"}]
    if done.returncode:
        return [{"case": name, "passed": False, "failed": " ".join(done.stderr.split())[-600:]}]
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return [*rows, {"case": f"{name}: whole case", "ours_s": time.perf_counter() - started}]


def table(figures: dict[str, Any], rows: list[Row]) -> str:
    """Markdown, for docs/."""
    lines = [" · ".join(f"{key} {value}" for key, value in figures.items()), "", "| case | seconds | outcome |", "|---|---|---|"]
    for row in rows:
        seconds = "" if row.get("ours_s") is None else f"{row['ours_s']:.3f}"
        rest = {k: v for k, v in row.items() if k not in ("case", "ours_s") and v is not None}
        outcome = ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rest.items())
        lines.append(f"| {row['case']} | {seconds} | {outcome} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cases."""
    parser = make_parser(__doc__, cases=CASES)
    parser.add_argument("--device", default="cuda", help="cuda or cpu (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--here", action="store_true", help="one case in this process")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that torch can use on this machine: nothing was checked")
        return
    device = torch.device(given.device)
    if given.here:
        print(json.dumps([row for name in chosen_cases(given) for row in CASES[name](device, quick=given.quick)]))
        return
    figures = describe_device(device)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        figures[f"{str(dtype).rpartition('.')[2]}_tflops"] = round(matrix_rate(device, dtype) / 1e12, 2)
    rows = [row for name in chosen_cases(given) for row in run_case(name, given.device, quick=given.quick)]
    print(json.dumps({"machine": figures, "rows": rows}) if given.json else table(figures, rows))
    sys.exit(any(row.get("passed") is False for row in rows))


if __name__ == "__main__":
    main()
