# To be sourced, with .venv active, after `make build`: what maturin tells cargo of Python. PyO3 is compiled anew whenever
# these change.
folder=${CARGO_TARGET_DIR:-$PWD/target}
PYO3_CONFIG_FILE=$(ls -t "$folder"/maturin/pyo3-config-*.txt | head -n 1)
PYO3_ENVIRONMENT_SIGNATURE=$(python -c 'import struct, sys; print("cpython-%d.%d-%dbit" % (*sys.version_info[:2], 8 * struct.calcsize("P")))')
PYO3_PYTHON=$VIRTUAL_ENV/bin/python
PYTHON_SYS_EXECUTABLE=$PYO3_PYTHON
PYO3_BUILD_EXTENSION_MODULE=1
export PYO3_CONFIG_FILE PYO3_ENVIRONMENT_SIGNATURE PYO3_PYTHON PYTHON_SYS_EXECUTABLE PYO3_BUILD_EXTENSION_MODULE
