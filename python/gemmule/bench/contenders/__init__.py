"""One module per contender, imported in its own process alone: `version()` and a function per kind of task.

`gemm(task)`, `train(task)`, `infer(task)` and so on prepare everything outside the clock, warm up, and return
the turn to play. Who can do a task in several ways tries them there and keeps the fastest; `variant` names
one.
"""
