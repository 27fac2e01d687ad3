"""A whole run: what the notebooks cost beside the stages, what a worker holds, how fast the command line answers.

    python benchmarks/run.py [--issue params/issues/001-demo.yaml] [--home DIR] [--out docs/benchmarks]

The issue is run twice in one go, everything computed anew, on one worker: through the notebooks, and the same stages without
them in this process. The difference is what notebooks, pages and worker processes cost. With --home DIR the run uses that
workbench (its database, its ledger), else a fresh one; a recorded market needs a workbench that has ingested it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).with_name("cryptoalgo")


def fresh_home() -> Path:
    "A workbench of its own, with the parameters and notebooks of this one."
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    (home / "settings.ini").write_text("[cryptoalgo]\n")
    shutil.copytree(ROOT / "params", home / "params")
    shutil.copytree(ROOT / "nbs" / "pipeline", home / "nbs" / "pipeline")
    return home


def timed(home: Path, *args: str, workers: int = 1) -> tuple[float, dict]:
    "Wall seconds and the summary of one run."
    env = os.environ | {"CRYPTOALGO_HOME": str(home), "CRYPTOALGO_WORKERS": str(workers), "OMP_NUM_THREADS": "1",
                        "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run([str(COMMAND), "run", *args, "--json"], cwd=home, env=env, stdout=subprocess.PIPE, check=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def help_seconds(runs: int = 9) -> float:
    "Median wall time of `cryptoalgo --help`."
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([str(COMMAND), "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--issue", default="params/issues/001-demo.yaml")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    args = parser.parse_args()
    home = args.home.resolve() if args.home else fresh_home()
    timed(home, args.issue)  # compile, fill the cache
    through, summary = timed(home, args.issue, "--force")
    without, _ = timed(home, args.issue, "--force", "--no-notebooks")
    again, _ = timed(home, args.issue)
    pair, _ = timed(home, args.issue, "--force", workers=2)
    peak = max(u["peak_mb"] for u in summary["units"])
    result = {"issue": args.issue, "through_notebooks_s": through, "without_s": without, "overhead_share": (through - without) / through,
              "two_workers_s": pair, "second_run_s": again, "worker_peak_mb": peak, "help_s": help_seconds()}
    rows = [("the run through notebooks, one worker", f"{through:.1f} s"), ("the same stages without notebooks", f"{without:.1f} s"),
            ("share of the run that notebooks cost", f"{result['overhead_share']:.1%}"), ("through notebooks, two workers", f"{pair:.1f} s"),
            ("a second run, nothing to compute", f"{again:.1f} s"), ("largest memory of a worker", f"{peak:.0f} MB"),
            ("`cryptoalgo --help`", f"{result['help_s']:.2f} s")]
    name = Path(args.issue).stem
    text = f"## {name}\n\n| what | measured |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"run-{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"run-{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
