// A product by blocks: packed, or read in place where that is cheaper.
#pragma once
#include <algorithm>

#include "cpu/ahead.h"
#include "cpu/block_sizes.h"

namespace gemmule::cpu {

// A C of this many bytes is not in L2 when its turn comes: 4096 x 4096 went from 86 to 90 % of the ceiling
// with its tiles prefetched, MNIST's step from 655 to 663 us.
inline constexpr Index result_beyond_cache = 1024 * 1024;

// Below this depth writing C is a good part of a tile's time.
inline constexpr Index two_panels_below = 96;

// The serial five loops on one block of C: depth (pc), columns of B that fit L2 (jc), row tiles (ic), column
// panels (jr); the micro-kernel is the fifth. B's block is packed once and streams from L2, a deep one from
// L3; a row tile's strip of A is packed where it is used, and stays in L1 or L2.
template <class T>
class BlockGemm {
 public:
  BlockGemm(const Kernels<T>& kernels, const Gemm<T>& call, const Block& block, T* workspace)
      : kernels_(kernels),
        k_(kernels.gemm),
        call_(call),
        block_(block),
        tiles_(block.rows, pieces(block.rows.size(), k_.rows)),
        shape_(block_shape(k_, call)),
        depth_(call.a.cols),
        chains_({0, depth_}, std::max<Index>(1, pieces(depth_, k_.depth_block))) {
    // Panels that the caller keeps are cut from the first column of the matrix on, packed ones from the
    // block's.
    kept_panels_ = call.b_form == Form::panels || call.c_form == Form::panels;
    panel_ = kept_panels_ ? panel_width(k_, call.b.cols) : k_.vectors * k_.lanes;
    panel_vectors_ = pieces(panel_, k_.lanes);
    by_panels_ = by_panels(k_, call);
    a_in_place_ = a_in_place(call) && call.c_form != Form::panels && !packs_on_the_way(k_, call);
    b_in_place_ = call.b_form == Form::strided && b_in_place(call);
    // The first tile of a panel packs it, those below read it packed.
    first_packs_ = by_panels_ && call.b_form == Form::strided && call.b.col_stride == 1 && !b_in_place_;
    // Two panels at once: for listed rows (isa/gemm.inl); and of little depth, where rows of C are written in
    // longer pieces, 128 x 10 x 128 takes 0.95 of the time. From 100 on it is 1.01 to 1.03 (Zen 4).
    makes_two_ = k_.two_panels && a_in_place_ && call.c_form == Form::strided &&
                 panel_ == k_.vectors * k_.lanes && call.a_form != Form::listed_columns &&
                 (call.a_form == Form::listed_rows || (call.a.row_stride != 1 && depth_ < two_panels_below));
    // Sums that are made in several depths wait in C for the next.
    keeps_ = !call.listener || call.listener->keep || depth_ > k_.depth_block;
    const bool told_panels = call.listener && call.c_form == Form::panels;
    most_run_ = by_panels_    ? (told_panels ? tiles_heard_of(k_, panel_) : tiles_.count)
                : told_panels ? tiles_heard
                              : 1;
    at_once_ = by_columns() ? tiles_heard : 1;
    keeps_strips_ = keeps_strips(k_, call);
    strip_ = strip_size(k_, shape_.depth);
    prefetches_ =
        block.rows.size() * block.cols.size() * static_cast<Index>(sizeof(T)) >= result_beyond_cache;
    workspace_ = strips_ = workspace;
    packed_ = strips_ + strips_at_once(k_, call);
    passing_ = packed_ + 2 * packed_size(k_, shape_, call.b.cols);
    passing_row_ = call.c_form == Form::panels ? panel_ : passing_columns(k_, call.b.cols);
  }

  void run() {
    if (block_.rows.size() <= 0 || block_.cols.size() <= 0) return;
    if (most_run_ == 1 && !call_.listener) most_run_ = strips_in_l1();
    const Index column_blocks = pieces(block_.cols.size(), shape_.columns / panel_ * panel_);
    const Index grain = kept_panels_ ? panel_ : k_.lanes, grains = pieces(block_.cols.size(), grain);
    for (Index pc = 0; pc < depth_blocks(); ++pc)
      for (Index jc = 0; jc < column_blocks; ++jc) {
        const Index j0 = block_.cols.begin + cut(grains, column_blocks, jc) * grain;
        const Index j1 =
            std::min(block_.cols.begin + cut(grains, column_blocks, jc + 1) * grain, block_.cols.end);
        first_columns_ = jc == 0;
        multiply({j0, j1}, chains_of(pc));
      }
  }

  // The whole product, B packed once for all members and the strips dealt to them. Two blocks of B take
  // turns: who is through with its strips begins to pack the next, and nobody waits before.
  void run_together(const Team& team) {
    T* common = static_cast<T*>(team.common(workspace_));
    if (keeps_strips_) strips_ = common;
    T* const blocks = common + strips_at_once(k_, call_);
    const Index column_blocks = pieces(call_.b.cols, shape_.columns / panel_ * panel_);
    const Index grains = pieces(call_.b.cols, panel_);
    Index turn = 0;
    for (Index pc = 0; pc < depth_blocks(); ++pc)
      for (Index jc = 0; jc < column_blocks; ++jc) {
        const Span chains = chains_of(pc), depth = depth_of(chains);
        const Span cols{cut(grains, column_blocks, jc) * panel_,
                        std::min(cut(grains, column_blocks, jc + 1) * panel_, call_.b.cols)};
        first_columns_ = jc == 0;
        packed_ = blocks + (turn++ % 2) * packed_size(k_, shape_, call_.b.cols);
        packed_width_ = panel_width(k_, cols.size());
        const Index piece = 4 * panel_;  // as many panels as are packed at a time
        team.deal(pieces(cols.size(), piece), [&](Index i) {
          pack_b({cols.begin + i * piece, std::min(cols.begin + (i + 1) * piece, cols.end)}, cols, depth);
        });
        team.barrier();
        const Index run = round_up(pieces(tiles_.count, Hands::most_items), at_once_);
        team.deal(pieces(tiles_.count, run), [&](Index i) {
          multiply_strips(i * run, std::min((i + 1) * run, tiles_.count), cols, chains);
        });
      }
    team.barrier();  // the leading member's workspace is its own again
  }

  // The whole product by its panels, each in some parts of rows: enough that members that are dealt them end
  // together.
  void run_by_panels(const Team& team) {
    if (tiles_.count <= 0 || block_.cols.size() <= 0) return;
    const Index width = makes_two_ ? 2 * panel_ : panel_, panels = pieces(block_.cols.size(), width);
    // Who packs on the way packs a panel again for each part of it that another made.
    const Index each = first_packs_ ? 4 : 16;
    const Index dealt = team.size() > 1 ? pieces(each * team.size(), panels) : 1;
    const Index parts = std::min({std::max(dealt, pieces(tiles_.count, most_run_)), tiles_.count, Index{64},
                                  std::max<Index>(1, Hands::most_items / panels)});
    // On the way: a depth at a time, so that its strips of A stay in cache and the panels side by side, that
    // share pages of B, follow each other.
    const Index at_once = first_packs_ ? 1 : chains_.count;
    for (Index turn = 0; turn < chains_.count; turn += at_once) {
      if (turn > 0 && team.meets()) team.barrier();  // who goes on with a panel may be another
      const Span turns{turn, turn + at_once};
      std::uint64_t packed = 0;  // the parts of A that this member has packed
      packed_panel_ = -1;
      team.deal(panels * parts, [&](Index item) {
        const Index part = item % parts, start = item / parts * width;
        const Index begin = cut(tiles_.count, parts, part), end = cut(tiles_.count, parts, part + 1);
        if (!a_in_place_ && !(packed >> part & 1)) {
          pack_strips(begin, end, depth_of({turn, turn + 1}));
          packed |= std::uint64_t{1} << part;
        }
        const Span cols{start, std::min(start + width, block_.cols.end)};
        for (Panel panel = first_panel(cols); panel.begin < cols.end; panel = after(panel, cols))
          multiply_part(panel, begin, end, turns);
      });
    }
  }

 private:
  // Strips of little depth go past each panel some at a time, in one call of the kernel: as many as stay in
  // L1 with their rows of C, and some more, as they pass by while the panel stays. 256 x 128 x 10 takes 0.77
  // of the time, 64 x 64 x 128 0.85 (Emerald Rapids; with AVX2 1.0 and 0.76). By the strips alone 256 x 128 x
  // 10 took 1.4 with AVX2.
  Index strips_in_l1() const {
    const Index row = std::min(depth_, k_.depth_block) + std::min(block_.cols.size(), k_.column_block);
    const Index strips = 48 * 1024 / (k_.rows * row * static_cast<Index>(sizeof(T)));
    return std::clamp<Index>(strips, 1, a_in_place_ ? tiles_.count : tiles_heard);
  }

  void pack_columns(Span cols, Span depth) {
    if (call_.b_form == Form::panels) return;
    // In place, only a last panel that ends inside a vector needs a copy.
    const Index whole = cols.size() / k_.lanes * k_.lanes;
    first_packed_ = !b_in_place_ ? 0 : whole == cols.size() ? cols.size() : whole / panel_ * panel_;
    packed_width_ = panel_width(k_, cols.size() - first_packed_);
    pack_b({cols.begin + first_packed_, cols.end}, cols, depth);
  }

  // Some panels of a block of B, which begins with column `first_packed_` of it.
  void pack_b(Span panels, Span cols, Span depth) const {
    const MatrixView<const T>& b = call_.b;
    k_.pack_b(depth.size(), panels.size(), packed_width_,
              b.data + depth.begin * b.row_stride + panels.begin * b.col_stride, b.row_stride, b.col_stride,
              packed_ + (panels.begin - cols.begin - first_packed_) * depth.size());
  }

  // The columns of one panel within a block, or of two that the kernel makes at once, and where they begin.
  struct Panel {
    Index start, begin, end;
  };
  Panel first_panel(Span cols) const {
    const Index start = kept_panels_ ? cols.begin / panel_ * panel_ : cols.begin;
    return panel_from(start, cols.begin, cols);
  }
  Panel after(const Panel& p, Span cols) const {
    const Index start = p.start + (p.end > p.start + panel_ ? 2 : 1) * panel_;
    return panel_from(start, start, cols);
  }
  Panel panel_from(Index start, Index begin, Span cols) const {
    const Index end = start + 2 * panel_, packed = cols.begin + first_packed_;
    const bool two = makes_two_ && begin == start && end <= cols.end && (end <= packed || start >= packed);
    return {start, begin, two ? end : std::min(start + panel_, cols.end)};
  }

  // Tiles of equal height one below the other, in the chains of a block, and those of their arguments that
  // stay from panel to panel.
  struct Strips {
    TileArgs<T> tile;
    const TileKernel<T>* kernel;
    Span rows;
    Span chains, depth;
  };

  void multiply(Span cols, Span chains) {
    pack_columns(cols, depth_of(chains));
    if (most_run_ == 1) return multiply_strips(0, tiles_.count, cols, chains);
    for (Index t = 0; t < tiles_.count; t += run_from(t)) multiply_strip(t, cols, chains);
  }

  // Strips [begin, end), packed where they are used; those of an A by columns some at a time, so that a line
  // of it is read once.
  void multiply_strips(Index begin, Index end, Span cols, Span chains) {
    for (Index t = begin; t < end; ++t) {
      if (packs_strips() && (t - begin) % at_once_ == 0)
        pack_strips(t, std::min(t + at_once_, end), depth_of(chains));
      multiply_strip(t, cols, chains);
    }
  }

  // A run of strips from t on, with all panels of the block.
  void multiply_strip(Index t, Span cols, Span chains) {
    Strips strips = strips_from(t, run_from(t), chains);
    Ahead<T> ahead = lines_ahead(t + run_from(t), strips.depth, pieces(cols.size(), panel_));
    for (Panel panel = first_panel(cols); panel.begin < cols.end; panel = after(panel, cols)) {
      ahead.fetch();
      multiply(strips, panel, cols);
    }
    if (chains.end < chains_.count) return;
    finish_rows(kernels_, call_, strips.rows, cols);
    if (call_.listener) tell(strips.rows, cols);
  }

  // Tiles [begin, end) of a panel, in some of the depths.
  void multiply_part(const Panel& panel, Index begin, Index end, Span turns) {
    const Span cols{panel.begin, panel.end};
    for (Index chain = turns.begin; chain < turns.end; ++chain) {
      const Span depth = depth_of({chain, chain + 1});
      const bool last = chain + 1 == chains_.count;
      // The part before may have been of the same panel, and a B that is packed has one depth at a time.
      bool packed = packed_panel_ == panel.begin;
      const bool on_the_way = first_packs_ && cols.size() == k_.vectors * k_.lanes;
      if (!packed && !on_the_way) pack_columns(cols, depth);
      packed_panel_ = panel.begin;
      for_each_run(begin, end, [&](Index t, Index count) {
        Strips strips = strips_from(t, count, {chain, chain + 1});
        if (on_the_way && !packed)
          multiply_packing(strips, panel, cols);
        else
          multiply(strips, panel, cols);
        packed = true;
        if (last) finish_rows(kernels_, call_, strips.rows, cols);
        if (call_.listener) tell(strips.rows, cols);
      });
    }
  }

  void multiply(Strips& strips, const Panel& panel, Span cols) {
    const Index width = panel.end - panel.begin;
    const Index vectors = width == panel_ ? panel_vectors_ : pieces(width, k_.lanes);
    place_columns(strips, panel, cols);
    place_result(strips, panel, cols);
    strips.kernel[vectors - 1](strips.tile);
  }
  // The same, with B in place, and packed for those that follow.
  void multiply_packing(Strips& strips, const Panel& panel, Span cols) {
    const MatrixView<const T>& b = call_.b;
    TileArgs<T>& tile = strips.tile;
    tile.b = b.data + strips.depth.begin * b.row_stride + panel.begin;
    tile.b_step = b.row_stride;
    tile.b_kept = packed_;
    tile.b_soon = panel.end + panel_ <= b.cols ? tile.b + panel_ : nullptr;
    place_result(strips, panel, cols);
    k_.kernel_keeping[strips.rows.size() / tile.tiles - 1](tile);
    first_packed_ = 0, packed_width_ = panel_;
  }

  // What the strips from tile t on are made of, in so many calls.
  Ahead<T> lines_ahead(Index t, Span depth, Index calls) const {
    Ahead<T> ahead;
    if (t >= tiles_.count) return ahead;
    const Index last = t + run_from(t);
    if (!a_in_place_ && !first_columns_ && keeps_strips_) {
      ahead.first_row = strip_of(t);
      ahead.step = strip_;
      ahead.rows = last - t;
      ahead.lines = pieces(tiles_.size(t) * depth.size(), in_a_line<T>);
    } else if (call_.a_form == Form::panels || (a_in_place_ && call_.a_form == Form::strided)) {
      return ahead;
    } else {
      ahead = ahead_in(call_, {tiles_.begin(t), tiles_.begin(last)}, depth);
    }
    ahead.share = pieces(ahead.lines * ahead.rows, calls);
    return ahead;
  }

  // How many tiles from t on are made in one go.
  Index run_from(Index t) const { return std::min(most_run_, tiles_.alike(t)); }

  // body(t, count) for the runs of tiles [begin, end).
  template <class Body>
  void for_each_run(Index begin, Index end, const Body& body) const {
    for (Index t = begin, count; t < end; t += count) {
      count = std::min(run_from(t), end - t);
      body(t, count);
    }
  }

  Strips strips_from(Index t, Index count, Span chains) const {
    Strips strips;
    strips.rows = {tiles_.begin(t), tiles_.begin(t + count)};
    strips.chains = chains;
    strips.depth = depth_of(chains);
    if (most_run_ > 1 && !by_panels_ && packs_strips()) pack_strips(t, t + count, strips.depth);
    TileArgs<T>& tile = strips.tile;
    tile.tiles = count;
    tile.depth = strips.depth.size();
    tile.chains = chains.size();
    tile.alpha = call_.alpha;
    tile.beta = chains.begin == 0 ? call_.beta : T(1);
    tile.act = is_last(chains) ? act_in_registers(call_) : Act::identity;
    tile.slope = call_.slope;
    tile.c_row = keeps_ && call_.c_form == Form::strided ? call_.c_row : passing_row_;
    strips.kernel = place_rows(tile, t, strips.depth);
    return strips;
  }
  bool is_last(Span chains) const { return chains.end == chains_.count; }

  // Strips that are not kept follow each other from where they were packed.
  T* strip_of(Index t) const {
    return strips_ + (keeps_strips_ ? t : most_run_ > 1 ? 0 : t % at_once_) * strip_;
  }
  bool by_columns() const { return call_.a_form == Form::listed_columns || call_.a.row_stride == 1; }
  bool packs_strips() const { return !a_in_place_ && (first_columns_ || !keeps_strips_); }

  void pack_strips(Index begin, Index end, Span depth) const {
    for (Index count; begin < end; begin += count) {
      count = std::min(tiles_.alike(begin), end - begin);
      pack_even_strips(begin, count, depth);
    }
  }

  // Of one height.
  void pack_even_strips(Index t, Index count, Span depth) const {
    const MatrixView<const T>& a = call_.a;
    const Index begin = tiles_.begin(t), apart = strip_;
    if (by_columns()) {
      const bool listed = call_.a_form == Form::listed_columns;
      const T* const* list = listed ? call_.a_list + depth.begin : nullptr;
      const T* data = listed ? nullptr : a.data + begin + depth.begin * a.col_stride;
      return k_.pack_strips(
          {tiles_.size(t), count, apart, depth.size(), list, begin, data, a.col_stride, strip_of(t)});
    }
    for (Index i = 0; i < count; ++i)
      k_.pack_a(tiles_.size(t), depth.size(),
                a.data + tiles_.begin(t + i) * a.row_stride + depth.begin * a.col_stride, a.row_stride,
                a.col_stride, strip_of(t) + i * apart);
  }

  // A tile's rows of A, where the kernel can read them: in place, or packed into their strip.
  const TileKernel<T>* place_rows(TileArgs<T>& tile, Index t, Span depth) const {
    const MatrixView<const T>& a = call_.a;
    const Index begin = tiles_.begin(t), height = tiles_.size(t);
    tile.a_run = tile.a_chunk = depth.size();
    tile.a_jump = 0;
    if (call_.a_form == Form::panels) {
      const Index width = panel_width(k_, depth_), within = depth.begin % width;
      tile.a = a.data + (depth.begin - within) * a.rows + begin * width + within;
      tile.a_row = width;
      tile.a_step = 1;
      tile.a_run = width - within;
      tile.a_chunk = width;
      tile.a_jump = width * a.rows - width;
      tile.a_next = height * width;
      return k_.kernel_rows[height - 1];
    }
    if (call_.a_form == Form::listed_rows) {
      tile.a_list = call_.a_list + begin;
      tile.a_first = depth.begin;
      return k_.kernel_listed_rows[height - 1];
    }
    if (a_in_place_) {
      tile.a = a.data + begin * a.row_stride + depth.begin * a.col_stride;
      tile.a_row = a.row_stride;
      tile.a_step = a.col_stride;
      tile.a_next = height * a.row_stride;
      return (a.row_stride == 1 ? k_.kernel : k_.kernel_rows)[height - 1];
    }
    tile.a = strip_of(t);
    tile.a_row = 1;
    tile.a_step = height;
    tile.a_next = strip_;
    return (tile.chains > 1 ? k_.kernel_of_chains : k_.kernel)[height - 1];
  }

  // The columns of B in a panel: in place where its rows are adjacent vectors, otherwise packed.
  void place_columns(Strips& strips, const Panel& panel, Span cols) const {
    const Index j = panel.begin, begin = strips.depth.begin;
    TileArgs<T>& tile = strips.tile;
    if (call_.b_form == Form::panels) {
      tile.b = call_.b.data + panel.start * depth_ + begin * panel_ + j - panel.start;
      tile.b_step = panel_;
      tile.b_next = panel_ * depth_;
    } else if (j - cols.begin < first_packed_) {
      tile.b = call_.b.data + begin * call_.b.row_stride + j;
      tile.b_step = call_.b.row_stride;
      tile.b_next = panel_;
    } else {
      tile.b = packed_ + (j - cols.begin - first_packed_) * strips.depth.size();
      tile.b_step = packed_width_;
      tile.b_next = panel_ * strips.depth.size();
    }
  }

  void place_result(Strips& strips, const Panel& panel, Span cols) const {
    const Index i = strips.rows.begin;
    TileArgs<T>& tile = strips.tile;
    tile.cols = panel.end - panel.begin;
    tile.bias = is_last(strips.chains) && call_.bias ? call_.bias + panel.begin : nullptr;
    if (!keeps_)
      tile.c = passing(panel, cols);
    else if (call_.c_form == Form::panels)
      tile.c = call_.c + offset_in_panels(i, panel);
    else
      tile.c = call_.c + i * call_.c_row + panel.begin;
    place_fetched(tile, i, panel);
  }
  // What is brought into cache while the sums are made: what is read beside them later, or C.
  void place_fetched(TileArgs<T>& tile, Index i, const Panel& panel) const {
    const bool told = call_.listener && call_.c_form == Form::strided;
    tile.fetch = told          ? call_.listener->beside + i * call_.c_row + panel.begin
                 : prefetches_ ? tile.c
                               : nullptr;
    tile.fetch_row = told ? call_.c_row : tile.c_row;
  }
  Index offset_in_panels(Index i, const Panel& panel) const {
    return panel.start * call_.a.rows + i * panel_ + panel.begin - panel.start;
  }
  // Where the rows of a panel pass through that are told of and not kept.
  T* passing(const Panel& panel, Span cols) const {
    if (by_panels_) return passing_;
    return passing_ + (panel.begin - cols.begin) * (call_.c_form == Form::panels ? tiles_heard * k_.rows : 1);
  }

  // The depth is cut into chains, and those are cut into blocks.
  Index depth_blocks() const { return pieces(chains_.count, shape_.chains); }
  Span chains_of(Index block) const {
    return {cut(chains_.count, depth_blocks(), block), cut(chains_.count, depth_blocks(), block + 1)};
  }
  Span depth_of(Span chains) const { return {chains_.begin(chains.begin), chains_.begin(chains.end)}; }

  void tell(Span rows, Span cols) const {
    const Listener<T>& listener = *call_.listener;
    if (call_.c_form == Form::strided) {
      for (Index i = rows.begin; i < rows.end; ++i) {
        const Index offset = i * call_.c_row + cols.begin;
        listener.take(listener, offset, cols.size(),
                      keeps_ ? call_.c + offset : passing_ + (i - rows.begin) * passing_row_);
      }
      return;
    }
    for (Panel panel = first_panel(cols); panel.begin < cols.end; panel = after(panel, cols)) {
      const Index offset = offset_in_panels(rows.begin, panel);
      T* stretch = keeps_ ? call_.c + offset : passing(panel, cols);
      // Tiles leave out what pads the last panel, and the workspace holds anything there.
      for (Index i = 0; panel.end < panel.start + panel_ && i < rows.size(); ++i)
        std::fill(stretch + i * panel_ + panel.end - panel.start, stretch + (i + 1) * panel_, T(0));
      listener.take(listener, offset, rows.size() * panel_, stretch);
    }
  }

  const Kernels<T>& kernels_;
  const GemmKernels<T>& k_;
  const Gemm<T>& call_;
  const Block block_;
  const EvenCut tiles_;
  const BlockShape shape_;
  const Index depth_;
  const EvenCut chains_;
  Index panel_, panel_vectors_, strip_;
  bool kept_panels_, a_in_place_, b_in_place_, first_packs_, makes_two_, keeps_;
  Index packed_panel_ = -1;
  Index first_packed_ = 0, packed_width_ = 0;  // of the block of B at hand, counted from its first column
  Index most_run_, at_once_;                   // at_once_: packed
  bool by_panels_, keeps_strips_, prefetches_, first_columns_ = true;
  T* workspace_;
  T* strips_;
  T* packed_;
  T* passing_;
  Index passing_row_;
};

}  // namespace gemmule::cpu
