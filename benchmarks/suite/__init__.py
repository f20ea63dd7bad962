"""The benchmarks that fit half an hour, run one after the other: `make bench`."""
