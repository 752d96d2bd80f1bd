"""How well `simclic plan` predicts, after `simclic calibrate`, the time that the jobs then take.

The exhibits of benchmarks/digits.py are calibrated, priced and run in an empty folder. `ratio price` is the time of all processes
as planned over what they took, `ratio wall` the same of the time until all results are there; at 1 the plan was right. Planning
all exhibits of the paper is timed beside starting Python and importing the package, which is the least it can take.

--quick takes Table 4 in miniature alone.

    python benchmarks/speed/plan.py [--quick]
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import make_parser, measure_seconds, print_machine

ROOT = Path(__file__).parents[2]
PAPER = sorted(str(p.relative_to(ROOT)) for kind in ("table", "figure") for p in (ROOT / "benchmarks").glob(f"{kind}[0-9].py"))
QUICK = '''"""Table 4 in miniature."""
from simclic import load
(TABLE,) = [e for e in load("benchmarks/digits.py").exhibits if e.name == "table4"]
'''


def main():
    """Calibrate, plan, run, compare."""
    quick = make_parser(__doc__).parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        exhibit = Path(folder) / "table4.py"
        exhibit.write_text(QUICK)
        what = str(exhibit) if quick else "benchmarks/digits.py"
        where = ["--runs", f"{folder}/runs", "--data", f"{folder}/data"]
        measuring, _ = run_simclic("calibrate", what, *where)
        _, output = run_simclic("plan", what, *where, "--json")
        planned = json.loads(output)
        wall, _ = run_simclic("run", what, *where, "--out", f"{folder}/out")
        _, output = run_simclic("plan", what, *where, "--json")
        seconds = [job["took"] for job in json.loads(output)["jobs"] if job["took"]]
        every = [run_simclic("plan", *PAPER, *where)[0] for _ in range(3 if quick else 7)]
        least = [run_python("-c", "import simclic")[0] for _ in every]
    price = sum(job["seconds"] - job["besides"] for job in planned["jobs"])  # as in the records
    print_machine()
    print(f"{len(planned['jobs'])} jobs of {what if not quick else 'Table 4 in miniature'}; calibrated in {measuring:.1f} s")
    print(f"{'':24}{'planned':>10}{'took':>10}")
    print(f"{'all processes':24}{price:8.1f} s{sum(seconds):8.1f} s")
    print(f"{'until all is there':24}{planned['wall_seconds']:8.1f} s{wall:8.1f} s   (with starting, and the report)")
    whole, start = statistics.median(every), statistics.median(least)
    print(f"{'plan of the whole paper':34}{whole:8.2f} s   (import simclic: {start:.2f} s)")
    print(f"ratio price {price / sum(seconds):.2f}")
    print(f"ratio wall {planned['wall_seconds'] / wall:.2f}")
    print(f"ratio ceiling {start / whole:.2f}")


def run_simclic(*words):
    """Return the seconds that a verb takes, and its output."""
    return run_python("-m", "simclic", *words)


def run_python(*words):
    """Return the seconds that a fresh Python process takes, and its output."""
    command = [sys.executable, *words]
    return measure_seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
