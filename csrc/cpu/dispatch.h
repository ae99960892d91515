// Which kernel table runs: the best the CPU has, or one forced lower.
#pragma once
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace gemmule::cpu {

// Best first.
std::vector<std::string> known_isas();
std::vector<std::string> supported_isas();

// The active table. The first call reads GEMMULE_MAX_ISA, and throws for a name that is unknown or cannot
// run.
const IsaTable& active();
// ErrorKind::value for an unknown name, ErrorKind::device where the CPU lacks it.
void force_isa(const std::string& name);

template <class T>
const Kernels<T>& kernels();
template <>
inline const Kernels<float>& kernels<float>() {
  return active().f32;
}
template <>
inline const Kernels<double>& kernels<double>() {
  return active().f64;
}

}  // namespace gemmule::cpu
