"""gemmule and its peers, side by side: `gemmule bench gemm | layers | train | cnn | show`. Nothing here is
imported by `import gemmule`."""
