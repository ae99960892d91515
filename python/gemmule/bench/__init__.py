"""gemmule and its peers, side by side: `gemmule bench gemm | train | show`. Nothing here is imported by
`import gemmule`."""
