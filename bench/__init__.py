"""gemmule and its peers, side by side: `python -m bench gemm` and `python -m bench train`."""
