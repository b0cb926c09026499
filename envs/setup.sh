#!/usr/bin/env bash
# Make the virtual environment: locked packages, one build of PyTorch, the library itself.
# usage: envs/setup.sh VENV TORCH      TORCH: auto | cpu | cuda
set -euo pipefail
venv=$1 torch=$2
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^ *"torch==\(.*\)",/\1/p' "$here/../pyproject.toml")
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $("$python" --version) found, Python 3.11 or newer expected; set PYTHON=python3.12, say" >&2
    exit 1
}
gpu=$(nvidia-smi -L 2>/dev/null | head -n 1 || true)
[ "$torch" != auto ] || torch=$([ -n "$gpu" ] && echo cuda || echo cpu)
echo "GPU: ${gpu:-none found}; PyTorch build: $torch"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
index=()
[ -z "${TORCH_INDEX:-}" ] || index=(--index-url "$TORCH_INDEX")
have=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true)
case "$torch" in
cpu)
    if [ "${have%%+*}" = "$version" ]; then
        :
    elif pip install "${index[@]}" "torch==$version+cpu" 2>/dev/null; then
        echo "PyTorch $version, CPU build (about 200 MB)"
    else
        echo "no CPU build in your package index (set TORCH_INDEX to one that has it);"
        echo "taking the index's own build: on Linux about 3 GB with the CUDA libraries"
        pip install "torch==$version"
    fi
    ;;
cuda)
    [ "${have%%+*}" = "$version" ] || {
        echo "PyTorch $version, CUDA build: about 3 GB with its libraries"
        pip install "${index[@]}" "torch==$version"
    }
    ;;
*)
    echo "error: TORCH=$torch; expected auto, cpu or cuda" >&2
    exit 1
    ;;
esac
echo "other packages: about 350 MB"
pip install -r "$here/requirements.lock"
pip install --no-deps -e "$here/.."
"$venv/bin/python" - <<'PY'
import torch

usable = torch.cuda.is_available()
print(f"PyTorch {torch.__version__}:", f"uses {torch.cuda.get_device_name(0)}" if usable else "no GPU will be used")
PY
