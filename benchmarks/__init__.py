"""The numbers behind docs/benchmarks.md: `make bench` prints them all, `python -m benchmarks NAME` one of them."""
