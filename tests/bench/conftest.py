"""The fixture of all tests of the load generator."""

from tests.bench.peers import bench  # noqa: F401
