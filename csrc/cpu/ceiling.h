// What the active ISA can reach at most: independent FMA chains in registers.
#pragma once

namespace gemmule::cpu {

// Operations per second of `threads` threads together, which run for at least `seconds`.
template <class T>
double fma_ceiling(int threads, double seconds);

}  // namespace gemmule::cpu
