// Errors carry a kind; the bindings turn each kind into its Python class.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace gemmule {

enum class ErrorKind { shape, dtype, value, memory, device, divergence, state };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// fail(ErrorKind::shape, "dense: x has ", n, " features")
template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(kind, message.str());
}

template <class... Parts>
void require(bool condition, ErrorKind kind, const Parts&... parts) {
  if (!condition) fail(kind, parts...);
}

}  // namespace gemmule
