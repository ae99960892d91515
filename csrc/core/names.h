// The names by which users call the enumerations of kinds.h.
#pragma once
#include <string>

#include "core/kinds.h"

namespace gemmule {

const char* name_of(Act act);
const char* name_of(Loss loss);

// ErrorKind::value, listing the known names, for any other.
Act act_of(const std::string& name);
Loss loss_of(const std::string& name);
Rule rule_of(const std::string& name);
Precision precision_of(const std::string& name);

}  // namespace gemmule
