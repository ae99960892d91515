// The passes that turn a layer-by-layer graph into one worth running. Each takes a graph and leaves a graph.
#pragma once
#include <vector>

#include "graph/graph.h"

namespace gemmule {

// Joins softmax + cross_entropy_probabilities into cross_entropy on logits, the same of kl_divergence, and
// sigmoid + bce into bce_with_logits: the pair's derivative, p - t, neither overflows nor divides. Acts on
// the loss node that makes `loss`.
void fuse_loss(Graph& graph, ValueId loss);

// relu or leaky_relu, then max_pool -> max_pool, then the activation, of fewer elements: the same results.
// Before `differentiate`, so that neither needs the large output of the activation again.
void pool_first(Graph& graph, const std::vector<ValueId>& keep);

// Appends the backward pass of `output`. `seed` is the value that holds its adjoint; no_value where `output`
// is a loss, which starts from itself. A gradient of a trainable parameter gets the home Home::gradient,
// added to what is there if `accumulate`. Returns the adjoint of `input`, or no_value unless `want_input`.
ValueId differentiate(Graph& graph, ValueId output, ValueId seed, ValueId input, bool want_input,
                      bool accumulate);

// Removes nodes whose results nobody needs, and second values that nobody reads; sums what max_pool_grad
// spreads before it does. Then joins an activation to
// the dense op before it, and an activation's derivative to the product before it, where no other node reads
// what lies between. Values in `keep` are needed and stay as they are.
void fuse(Graph& graph, const std::vector<ValueId>& keep);

// Parts of `fuse`, for normalizations.
void fold_norms(Graph& graph, const std::vector<ValueId>& keep);
bool join_activation(Node& norm, const Attrs& activation);
void fuse_norm_derivatives(Graph& graph, const std::vector<ValueId>& keep);

// Whether the update of a parameter may ride on the op that makes its gradient, and weight matrices lie in
// the backend's panels: every op that touches a parameter or makes a gradient can take that, and no Python op
// runs between them.
bool updates_may_ride(const Graph& graph);

// Lets weight matrices, and their gradients, lie in the backend's panels, in a graph where updates may ride.
void prefer_panels(Graph& graph);

// Lets the rows of `input` lie where the data set has them, in a graph whose weights are in panels: only
// where none but dense ops of at most `outputs` columns read it, and the products of their gradients.
void prefer_listed(Graph& graph, ValueId input, Index outputs);

// Moves the ops that make gradients of parameters behind all others, and returns where they begin. Once the
// others have run, each of these may be followed by the update of its parameter.
int gather_gradients(Graph& graph);

// Where each value of Home::arena lies: byte offsets into one block, by liveness at `capacity` rows. Values
// in `keep` live to the end. With `share` false every value has its own place.
struct Placement {
  std::vector<Index> offset;  // -1: not in the arena
  Index bytes = 0;
};
Placement place(const Graph& graph, Index capacity, const std::vector<ValueId>& keep, bool share = true);

}  // namespace gemmule
