#!/bin/sh
# Prints the path of a CPython of at least 3.11; exit 1 when PATH has none.
# `python3` first: the one that the machine's owner chose. A free-threaded build cannot load abi3.
for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    "$name" - 2>/dev/null <<'PY' && exit 0
import platform, sys, sysconfig
if sys.version_info < (3, 11) or platform.python_implementation() != "CPython":
    sys.exit(1)
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(1)
print(sys.executable)
PY
done
exit 1
