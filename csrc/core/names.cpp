#include "core/names.h"

#include "core/error.h"

namespace gemmule {
namespace {

constexpr const char* act_names[act_count] = {"identity",  "relu", "leaky_relu", "elu",  "gelu",
                                              "gelu_tanh", "silu", "sigmoid",    "tanh", "softplus"};
constexpr const char* loss_names[loss_count] = {"mse",
                                                "half_mse",
                                                "mae",
                                                "bce",
                                                "bce_with_logits",
                                                "cross_entropy",
                                                "cross_entropy_probabilities",
                                                "huber",
                                                "hinge",
                                                "poisson",
                                                "poisson_rates",
                                                "kl_divergence",
                                                "kl_divergence_probabilities",
                                                "custom"};
constexpr const char* rule_names[] = {"sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "muon"};
constexpr const char* precision_names[] = {"full", "bf16"};

template <class Kind, std::size_t n>
Kind find(const char* what, const char* const (&names)[n], const std::string& name) {
  for (std::size_t i = 0; i < n; ++i)
    if (name == names[i]) return static_cast<Kind>(i);
  std::string known;
  for (const char* each : names) known += (known.empty() ? "" : ", ") + std::string(each);
  fail(ErrorKind::value, "unknown ", what, " '", name, "'; known are ", known);
}

}  // namespace

const char* name_of(Act act) { return act_names[static_cast<int>(act)]; }
const char* name_of(Loss loss) { return loss_names[static_cast<int>(loss)]; }

Act act_of(const std::string& name) { return find<Act>("activation", act_names, name); }
Loss loss_of(const std::string& name) { return find<Loss>("loss", loss_names, name); }
Rule rule_of(const std::string& name) { return find<Rule>("optimizer", rule_names, name); }
Precision precision_of(const std::string& name) {
  return find<Precision>("precision", precision_names, name);
}

}  // namespace gemmule
