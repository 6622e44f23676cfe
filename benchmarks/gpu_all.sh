#!/bin/sh
# Every figure that wants a GPU, in one go: the path, the shapes, the exports, a larger starter. docs/gpu.md says more.
#
#   sh benchmarks/gpu_all.sh VOCABULARIES [RESULTS]
#
# VOCABULARIES is a folder with llama.cpp's ggml-vocab-*.gguf (models/ of its sources). RESULTS takes the JSON files;
# default: benchmarks/results. Of the environment:
#   PARTS    which of "path shapes export starter" (default: all)
#   WORK     a folder for models, about 60 GB (default: runs/gpu)
#   SMALL=1  the same commands on small shapes, for a machine without a GPU; its figures mean nothing
# A part that fails does not stop the others; the exit code is that of the last one that failed.
set -u
cd "$(dirname "$0")/.." || exit 1
vocabularies=${1:?"give the folder of ggml-vocab-*.gguf"}
results=${2:-benchmarks/results}
parts=${PARTS:-path shapes export starter}
work=${WORK:-runs/gpu}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$work" "$results"
failed=0

if [ "${SMALL:-}" ]; then
    device=cpu demo="--rows 300 --cases 12" rows=8 shapes="tiny tiny-phi-3" exported="tiny tiny-phi-3"
    recipe=benchmarks/small_starter.yaml compared="--rows 64 --cases 4 --set training.epochs=1"
else
    device=cuda demo="" rows=160 shapes="llama-3.2-3b phi-3-mini mistral-7b llama-3-8b" exported="llama-3.2-3b llama-3-8b"
    recipe=starter_gpu compared=""
fi

step() {
    echo "== $*"
    "$@"
    code=$?
    [ $code -eq 0 ] || { failed=$code; echo "== exit code $code: $*"; }
}

for part in $parts; do
    case $part in
    path)
        # shellcheck disable=SC2086  # words of their own
        step "$python" -m edgewright demo --out "$work/demo" --set device=$device $demo
        cp "$work/demo/report.json" "$results/gpu-demo.json"
        step "$python" -m benchmarks.placements "$work/demo/run" "$work/demo/gguf/model-F16.gguf" \
            "$work/demo/gguf/model-Q4_K_M.gguf" --cases "$work/demo/cases.jsonl" --out "$results/gpu-placements.json"
        ;;
    shapes)
        rm -rf "$work/shapes"
        for shape in $shapes; do # one at a time, so that one that fails leaves the others' figures
            step "$python" -m benchmarks.train_shapes --shape "$shape" --vocabularies "$vocabularies" --rows $rows \
                --keep "$work/shapes" --out "$results/gpu-train-$shape.json"
            case " $exported " in *" $shape "*) ;; *) rm -rf "$work/shapes/$shape" ;; esac
        done
        ;;
    export)
        for shape in $exported; do
            step "$python" -m benchmarks.export_gates "$work/shapes/$shape" --scratch "$work" \
                --out "$results/gpu-export-$shape.json"
        done
        ;;
    starter)
        step "$python" -m edgewright pretrain "$recipe" --out "$work/starter"
        cp "$work/starter/training.json" "$results/gpu-starter.json"
        # shellcheck disable=SC2086
        step "$python" -m benchmarks.compare_bases finetune/starter "$work/starter" --device $device $compared \
            --out "$results/gpu-compare-bases.json"
        ;;
    *)
        echo "there is no part $part" && exit 2
        ;;
    esac
done
exit $failed
