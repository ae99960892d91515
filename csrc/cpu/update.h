// The CPU's optimizer walks: what backend.h asks for of parameters in their stores.
#pragma once
#include "backend.h"

namespace gemmule::cpu {

double update(DType type, Rule rule, const UpdateArgs& args, const ParameterRange& range, const Team& team);
double rehearse(DType type, Rule rule, const UpdateArgs& args, const ParameterRange& range, const Team& team);
double max_gradient(DType type, const ParameterRange& range, const Team& team);
double sum_squares(DType type, Index count, double limit, const std::byte* x);
void axpby(DType type, Index count, double a, const std::byte* x, double b, std::byte* y);

}  // namespace gemmule::cpu
