#!/bin/sh
# Inside a build: install what /requirements.txt pins, then drop what only tests or builds against these libraries.
set -eu
# The pins are complete, so pip looks for no dependency: an index may have a newer one, which has no hash here.
# A wheel that was handed in is trusted as it is: the hashes are those of the indexes' own builds.
for wheel in /wheels/*.whl; do
  pin=$(basename "$wheel" | sed 's/-/==/; s/-.*//; s/_/-/g' | tr A-Z a-z)
  if grep -qF "$pin " /requirements.txt; then
    pip install --root-user-action=ignore --disable-pip-version-check --no-cache-dir --no-deps --no-index "$wheel"
  fi
done
pip install --root-user-action=ignore --disable-pip-version-check --cache-dir /var/cache/pip --no-deps --require-hashes --find-links /wheels \
  ${PYTORCH_INDEX:+--extra-index-url "$PYTORCH_INDEX"} --requirement /requirements.txt
cd "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
rm -rf torch/include pyarrow/include onnx/backend/test
find . -type d -name tests -prune -exec rm -rf {} +
