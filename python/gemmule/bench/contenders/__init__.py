"""One module per contender, imported in its own process alone: `version()` and a function per kind of task.

`gemm(task)` and `train(task)` prepare everything outside the clock, warm up, and return the turn to play.
"""
