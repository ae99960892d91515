// The enumerations that every stage speaks. Plain data: ISA files include this header.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gemmule {

using Index = std::int64_t;

enum class DType : std::uint8_t { f32, f64, i64, u8 };

// Activations are functions of the pre-activation z; `slope` is their one parameter:
// leaky_relu's slope for z < 0, elu's alpha, sigmoid's beta. The others ignore it.
enum class Act : std::uint8_t {
  identity,
  relu,
  leaky_relu,
  elu,
  gelu,       // z Phi(z), by erf
  gelu_tanh,  // its tanh approximation
  silu,
  sigmoid,
  tanh,
  softplus,
};
inline constexpr int act_count = 10;

enum class Loss : std::uint8_t {
  mse,
  half_mse,
  mae,
  bce,                          // on probabilities
  bce_with_logits,              // on logits
  cross_entropy,                // on logits
  cross_entropy_probabilities,  // on a softmax output
  huber,
  hinge,
  poisson,                      // on the logarithm of the rate
  poisson_rates,                // on the rate
  kl_divergence,                // on logits
  kl_divergence_probabilities,  // on a softmax output
  custom,                       // the user's own, in Python
};
inline constexpr int loss_count = 14;

// What the operands of a product are rounded to; it accumulates in its own type all the same.
enum class Precision : std::uint8_t { full, bf16 };

// muon_direction is the first half of muon's step, and has no name of its own.
enum class Rule : std::uint8_t { sgd, adam, adamw, rmsprop, adagrad, lion, muon, muon_direction };

}  // namespace gemmule
