#include <algorithm>

#include "core/arena.h"
#include "graph/op.h"
#include "graph/passes.h"

namespace gemmule {
namespace {

// A block of memory and the stretch of nodes during which it is in use. Values that share it (a reshape's two
// sides, an op done in place) hold its index.
struct Block {
  Index bytes;
  int first, last;
  Index offset = -1;
};

class Placer {
 public:
  Placer(const Graph& graph, Index capacity, const std::vector<ValueId>& keep, bool share)
      : graph_(graph), capacity_(capacity), keep_(keep), share_(share), block_of_(graph.values.size(), -1) {}

  Placement run() {
    find_last_reads();
    const int end = static_cast<int>(graph_.nodes.size());
    for (int i = 0; i < end; ++i) {
      const Node& node = graph_.nodes[static_cast<std::size_t>(i)];
      if (node.also != no_value) give_block(node.also, new_block(node.also, i));
      if (graph_.value(node.out).home != Home::arena) continue;
      int block = taken_over(node, i);
      if (block < 0 && node.op == OpKind::reshape) continue;  // a view of memory outside the arena
      if (block < 0) block = new_block(node.out, i);
      give_block(node.out, block);
    }
    return lay_out();
  }

 private:
  Index bytes_of(ValueId id) const {
    return round_up(checked_mul(graph_.count(id, capacity_), size_of(graph_.info(id).type)), alignment);
  }

  int new_block(ValueId id, int now) {
    blocks_.push_back({bytes_of(id), now, now});
    return static_cast<int>(blocks_.size()) - 1;
  }

  void give_block(ValueId id, int block) {
    block_of_[static_cast<std::size_t>(id)] = block;
    Block& b = blocks_[static_cast<std::size_t>(block)];
    b.last = std::max(b.last, last_read_[static_cast<std::size_t>(id)]);
  }

  void find_last_reads() {
    last_read_.assign(graph_.values.size(), -1);
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i)
      for (ValueId id : graph_.nodes[i].in) last_read_[static_cast<std::size_t>(id)] = static_cast<int>(i);
    for (ValueId id : keep_) last_read_[static_cast<std::size_t>(id)] = static_cast<int>(graph_.nodes.size());
  }

  // The block of an input that the result can use: a reshape's always, an in-place op's where the input ends
  // here.
  int taken_over(const Node& node, int now) const {
    const bool view = node.op == OpKind::reshape;
    const int position = view ? 0 : rule(node.op).in_place;
    if (position < 0) return -1;
    const ValueId source = node.in[static_cast<std::size_t>(position)];
    const int block = block_of_[static_cast<std::size_t>(source)];
    if (block < 0 || view) return block;
    const bool ends = blocks_[static_cast<std::size_t>(block)].last == now;
    return share_ && ends && bytes_of(source) == bytes_of(node.out) ? block : -1;
  }

  // Largest first, each at the lowest offset free for the whole of its life.
  Placement lay_out() {
    std::vector<Block*> order;
    for (Block& b : blocks_) order.push_back(&b);
    std::stable_sort(order.begin(), order.end(),
                     [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
    Placement placement;
    std::vector<const Block*> placed;  // by offset
    for (Block* b : order) {
      Index offset = 0;
      for (const Block* other : placed) {
        const bool alive_together = !share_ || (other->first <= b->last && b->first <= other->last);
        if (alive_together && offset < other->offset + other->bytes && other->offset < offset + b->bytes)
          offset = other->offset + other->bytes;
      }
      b->offset = offset;
      placed.insert(std::upper_bound(placed.begin(), placed.end(), b,
                                     [](const Block* x, const Block* y) { return x->offset < y->offset; }),
                    b);
      placement.bytes = std::max(placement.bytes, checked_add(offset, b->bytes));
    }
    for (int block : block_of_)
      placement.offset.push_back(block < 0 ? -1 : blocks_[static_cast<std::size_t>(block)].offset);
    return placement;
  }

  const Graph& graph_;
  const Index capacity_;
  const std::vector<ValueId>& keep_;
  const bool share_;
  std::vector<int> block_of_, last_read_;
  std::vector<Block> blocks_;
};

}  // namespace

Placement place(const Graph& graph, Index capacity, const std::vector<ValueId>& keep, bool share) {
  return Placer(graph, capacity, keep, share).run();
}

}  // namespace gemmule
