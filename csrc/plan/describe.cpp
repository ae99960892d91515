// A program as a table for people.
#include <algorithm>
#include <cstdio>

#include "core/names.h"
#include "graph/op.h"
#include "plan/program.h"

namespace gemmule {
namespace {

std::string dims_of(const Graph& graph, ValueId id) {
  const ValueInfo& info = graph.info(id);
  if (!info.batched) return info.dims.str();
  std::string text = "(batch";
  for (Index d : info.dims.dims()) text += ", " + std::to_string(d);
  return text + (info.dims.rank() ? ")" : ",)");
}

// Whether parameters are trained on a copy in panels.
bool trains_a_copy(const Graph& graph) {
  return std::any_of(graph.parameters.begin(), graph.parameters.end(),
                     [](const ParameterRef& p) { return p.panels; });
}

// What the compiler joined into this node.
std::string fused(const Graph& graph, const Node& node, bool updates_ride) {
  std::string text;
  if (node.op == OpKind::dense || node.op == OpKind::conv2d) {
    if (node.attrs.scaled)
      text += "+ norm ";
    else if (node.in.size() > (node.attrs.residual ? 3 : 2))
      text += "+ bias ";
    if (node.attrs.residual) text += "+ residual ";
    if (node.attrs.act != Act::identity) text += std::string("+ ") + name_of(node.attrs.act) + " ";
  }
  const bool forward = node.attrs.transposed,
             product = node.op == OpKind::matmul || node.op == OpKind::conv2d_data;
  if (forward && node.in.size() > (node.attrs.residual ? 3 : 2)) text += "+ bias ";
  if (node.op == OpKind::conv2d_data && node.attrs.residual) text += "+ residual ";
  if (product && node.attrs.act != Act::identity)
    text += std::string(forward ? "+ " : "x ") + name_of(node.attrs.act) + (forward ? " " : "' ");
  if (node.op == OpKind::batch_norm || node.op == OpKind::group_norm) {
    if (node.attrs.residual) text += "+ residual ";
    if (node.attrs.act != Act::identity) text += std::string("+ ") + name_of(node.attrs.act) + " ";
  }
  if ((node.op == OpKind::batch_norm_sums || node.op == OpKind::batch_norm_grad ||
       node.op == OpKind::group_norm_sums || node.op == OpKind::group_norm_grad) &&
      node.attrs.act != Act::identity)
    text += std::string("x ") + name_of(node.attrs.act) + "' ";
  if (node.op == OpKind::activation || node.op == OpKind::activation_grad) text += name_of(node.attrs.act);
  if (node.op == OpKind::loss || node.op == OpKind::loss_grad) text += name_of(node.attrs.loss);
  if (node.attrs.accumulate) text += "+= ";
  if (graph.value(node.out).home == Home::gradient && updates_ride) text += "+ update";
  return text;
}

std::string called(const Node& node) {
  return std::string(rule(node.op).name) + (node.attrs.precision == Precision::bf16 ? " bf16" : "");
}

std::string kilobytes(Index bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f KB", static_cast<double>(bytes) / 1024);
  return text;
}

}  // namespace

std::string Program::describe(const std::string& title, bool updates_ride) const {
  std::string text = title + ": " + std::to_string(nodes()) + " ops, batch " + std::to_string(capacity_) +
                     ", " + name_of(graph_.type) + ", " + backend_.name + " (" + backend_.variant() + ", " +
                     std::to_string(team_size(capacity_)) + " threads)\n";
  char line[256];
  std::snprintf(line, sizeof line, "%4s  %-16s %-22s %-20s %-18s %10s  %s\n", "#", "op", "fused", "makes",
                "shape", "MFLOP", "memory");
  text += line;
  double total = 0;
  Index separate = 0;
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    const Value& out = graph_.value(node.out);
    const double flops = rule(node.op).cost(graph_, node, capacity_);
    const Index offset = placement_.offset[static_cast<std::size_t>(node.out)];
    const std::string home = out.home == Home::gradient     ? "gradient"
                             : out.home == Home::next_state ? "state"
                             : offset < 0                   ? "view"
                                                            : "arena + " + std::to_string(offset);
    std::snprintf(line, sizeof line, "%4zu  %-16s %-22s %-20s %-18s %10.3f  %s\n", i, called(node).c_str(),
                  fused(graph_, node, updates_ride).c_str(), out.name.c_str(),
                  dims_of(graph_, node.out).c_str(), flops * 1e-6, home.c_str());
    text += line;
    total += flops;
    if (node.also != no_value) {
      const Value& also = graph_.value(node.also);
      std::snprintf(line, sizeof line, "%4s  %-16s %-22s %-20s %-18s %10s  arena + %lld\n", "", "", "",
                    also.name.c_str(), dims_of(graph_, node.also).c_str(), "",
                    static_cast<long long>(placement_.offset[static_cast<std::size_t>(node.also)]));
      text += line;
      separate += round_up(graph_.count(node.also, capacity_) * size_of(also.info.type), alignment);
    }
    if (out.home == Home::arena && offset >= 0)
      separate += round_up(graph_.count(node.out, capacity_) * size_of(out.info.type), alignment);
  }
  std::snprintf(line, sizeof line, "%.3f MFLOP a run; ", total * 1e-6);
  text +=
      line + ("arena " + kilobytes(placement_.bytes)) + " (" + kilobytes(separate) + " without sharing)\n";
  if (trains_a_copy(graph_)) text += "weights in panels: a run trains a copy of them\n";
  return text;
}

}  // namespace gemmule
