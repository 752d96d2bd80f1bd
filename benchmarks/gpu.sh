#!/bin/bash
# Everything that only a GPU can show, in the order of its worth. Each part is timed, and is stopped at its limit.
#
#     benchmarks/gpu.sh [--out DIR] [--minutes N] [--images ARCHIVE] [--dry] [--cpu] [PART ...]
#
#   tests      the tests that have a half on CUDA: at most 7 minutes
#   speed      benchmarks/speed/*.py --quick, against their peers: at most 14
#   calibrate  how long a step takes here, and what the exhibits would cost: at most 3
#   record     cifar10_resnet18.py, 10 epochs first, then 50 and 200
#   yardstick  yardstick.py; data/ must hold the makers' CIFAR10
#
# Without a PART all of them. DIR (runs/gpu) gets summary.txt, a log for each part, and records.tar.gz with whatever record and
# yardstick have finished; both continue where an earlier call stopped. --minutes N: the whole ends after N minutes; what still runs
# is stopped, and trainings are saved. --images: an archive that holds CIFAR10 as
# train/CLASS/ and test/CLASS/, which is unpacked into data/cifar10-jpeg.
# --dry prints the commands. --cpu goes on without a GPU, to try this script.
# It needs neither a network nor an installation: Python is $PYTHON, else .venv's, else python3. PYTHONPATH may name a folder with
# lightly, which some methods take losses and heads from; without it their trainings fail, and the others go on.
set -uo pipefail
caller=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." || exit 2

die() { echo "error: $*" >&2; exit "${code:-2}"; }

usage='usage: benchmarks/gpu.sh [--out DIR] [--minutes N] [--images ARCHIVE] [--dry] [--cpu] [tests|speed|calibrate|record|yardstick ...]'
out=runs/gpu minutes='' images='' dry='' cpu='' parts=()
while [ $# -gt 0 ]; do
    case $1 in
        --out | --images) [ -n "${2-}" ] || die "$usage"; declare "${1#--}=$(cd "$caller" && realpath -m -- "$2")"; shift ;;
        --minutes) [[ ${2-} =~ ^[1-9][0-9]{0,4}$ ]] && [ "$2" -ge 2 ] || die "--minutes: a whole number from 2 up; $usage"; minutes=$2; shift ;;
        --dry | --cpu) declare "${1#--}=1" ;;
        tests | speed | calibrate | record | yardstick) parts+=("$1") ;;
        *) die "$1: $usage" ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(tests speed calibrate record yardstick)
[ -x .venv/bin/python ] && python=.venv/bin/python || python=python3
python=${PYTHON:-$python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
# The last minute is for packing what is done.
all=$((60 * ${minutes:-100000})) work=$((60 * ${minutes:-100000} - 60))

if [ -z "$dry" ]; then
    code=1
    gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")' 2>/dev/null) ||
        die "$python: cannot import torch; name another with PYTHON="
    [ -n "$gpu$cpu" ] || die "torch sees no CUDA device here; --dry prints what would run, --cpu tries it without one"
    [ -z "$images" ] || [ -r "$images" ] || die "--images $images: no such archive"
    mkdir -p "$out" || exit
    printf '%s  %s, commit %s\n' "$(date -u +%FT%TZ)" "${gpu:-CPU}" "$(git describe --always --dirty=+ 2>/dev/null)" | tee -a "$out/summary.txt"
fi

# step LOG SECONDS COMMAND...: run it for at most so long and not beyond $ends; its output goes into the log, its time into the summary.
step() {
    local log=$out/$1.log limit=$2 began=$SECONDS left=$((ends - SECONDS)) end
    shift 2
    [ "$left" -ge "$limit" ] || limit=$left
    [ -z "$dry" ] || { echo "$*"; return 0; }
    if [ "$limit" -le 0 ]; then
        end="not begun"
    else
        echo "\$ $*" >>"$log"
        { timeout --signal=INT --kill-after=30 "$limit" "$@" >>"$log" 2>&1 </dev/null; } 2>/dev/null  # it may kill itself, too
        case $? in 0) end='done' ;; 124 | 137) end=stopped ;; *) end="FAILED" ;; esac
    fi
    printf '%-9s %5d s  %s\n' "$end" $((SECONDS - began)) "$*" | tee -a "$out/summary.txt"
    [ "$end" = 'done' ]
}

# keep NAME: its report, and its record, from whatever is done.
keep() {
    local ends=$all
    rm -rf -- "${out:?}/records/${1//_/-}"
    step "$1" 60 "$python" -m simclic report "benchmarks/$1.py" --runs "$out/runs" --out "$out/report"
    step "$1" 60 "$python" -m simclic record "${1//_/-}" "benchmarks/$1.py" --runs "$out/runs" --records "$out/records"
    [ -n "$dry" ] || [ ! -d "$out/records" ] || tar -czf "$out/records.tar.gz" -C "$out" records
}

# The images of --images as data/cifar10-jpeg, whole or not at all.
unpack() {
    [ ! -d data/cifar10-jpeg ] || return
    [ -n "$dry" ] || { rm -rf data/.unpacking && mkdir -p data/.unpacking; }
    step cifar10_resnet18 300 tar -xf "$images" -C data/.unpacking && step cifar10_resnet18 60 mv data/.unpacking data/cifar10-jpeg
}

ends=$work
for part in "${parts[@]}"; do
    case $part in
        tests)
            mapfile -t files < <(grep -lE '^def test_.*\bdevice[,)]' tests/test_*.py)
            step tests 420 "$python" -m pytest -k cuda -p no:cacheprovider "${files[@]}"
            ;;
        speed)
            while read -r name limit; do
                step speed "$limit" "$python" "benchmarks/speed/$name.py" --quick
            done <<'END'
pretrain 300
finetune 180
linear 120
data 60
checkpoint 60
plan 120
END
            [ -n "$dry" ] || grep -s '^ratio' "$out/speed.log" | tee -a "$out/summary.txt"
            ;;
        calibrate)
            step calibrate 90 "$python" -m simclic calibrate benchmarks/table2.py --runs "$out/runs"
            step calibrate 60 "$python" -m simclic calibrate benchmarks/cifar10_resnet18.py --runs "$out/runs"
            step calibrate 30 "$python" -m simclic plan benchmarks/table*.py benchmarks/figure*.py benchmarks/cifar10_resnet18.py --runs "$out/runs"
            ;;
        record)
            [ -z "$images" ] || unpack
            for epochs in 10 50 200; do
                file=$out/cifar10_resnet18_$epochs.py
                [ -n "$dry" ] || cat >"$file" <<END
"""The table of cifar10_resnet18.py with $epochs epochs, so that it is run before longer trainings."""
from simclic import load
(TABLE,) = [e for e in load("benchmarks/cifar10_resnet18.py").exhibits if e.name == "cifar10-resnet18-$epochs"]
END
                step cifar10_resnet18 "$all" "$python" -m simclic run "$file" --runs "$out/runs" --out "$out/report" --per-gpu 4
            done
            keep cifar10_resnet18
            ;;
        yardstick)
            step yardstick "$all" "$python" -m simclic run benchmarks/yardstick.py --runs "$out/runs" --out "$out/report" --per-gpu 4
            keep yardstick
            ;;
    esac
done
