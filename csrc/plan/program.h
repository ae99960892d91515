// A compiled graph: kernel calls over one arena, for any number of rows up to a capacity.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "graph/passes.h"
#include "plan/poll.h"

namespace gemmule {

// An optimizer step whose parts ride on the ops that make the gradients; each member has its own.
struct RidingUpdate {
  Rule rule;
  UpdateArgs args;
  std::span<const UpdateTarget> targets;  // by node
  bool keep_gradients;
  double reach = 0;  // the largest magnitude written
};

// One caller's memory: arena, workspaces and the address of every value. Checked out of a program's pool, so
// that concurrent callers never share one.
struct Execution {
  Arena arena, workspace;
  Index workspace_bytes = 0;      // per member
  int members = 0;                // of the team that runs now
  int room = 0;                   // members that have a workspace
  const char* variant = nullptr;  // of the backend, when this was sized
  bool timed = false;             // verbose() when a run began: every member of a team goes by one answer
  std::vector<void*> address;     // by value
};

class Program {
 public:
  // `keep`: values that live to the end of a run. `share` false gives every value its own memory.
  Program(const Backend& backend, Graph graph, Index capacity, std::vector<ValueId> keep, bool share = true);

  const Graph& graph() const { return graph_; }
  const Backend& backend() const { return backend_; }
  Index capacity() const { return capacity_; }
  int nodes() const { return static_cast<int>(graph_.nodes.size()); }
  bool calls_python() const { return calls_python_; }
  // Its native ops take subnormal numbers for zero from now on.
  void flush_subnormals() { flushes_ = true; }
  // Where the part that makes `value` ends: one past its node.
  int end_of(ValueId value) const;
  // The team that this much work deserves.
  int team_size(Index rows) const;

  // An execution for a team of up to `members`, its parameters bound; externals are the caller's to bind.
  std::unique_ptr<Execution> checkout(int members) const;
  void give_back(std::unique_ptr<Execution> execution) const;

  // Runs nodes [begin, end) on `rows` rows. Native stretches run on a team of `execution.members`; between
  // them, with no team alive, Python ops call Python and may throw. Leaves early, at the same op on every
  // member, once `poll` says so.
  void run(Execution& execution, int begin, int end, Index rows, const StepScalars& scalars,
           Poll* poll = nullptr) const;
  // The same as a member of a team that is already running; only for programs that never call Python. Ends
  // with a barrier.
  void run_member(const Team& team, Execution& execution, int begin, int end, Index rows,
                  const StepScalars& scalars, Poll* poll = nullptr, RidingUpdate* update = nullptr) const;

  // To be called when external values have new addresses: a reshape of one is that one's memory.
  void bind_views(Execution& execution) const;
  Operand operand(const Execution& execution, ValueId value, Index rows) const;
  // Ops, shapes, fusions, FLOPs and memory, as a table for people.
  std::string describe(const std::string& title, bool updates_ride = false) const;

 private:
  void run_python(Execution& execution, const Node& node, Index rows, const StepScalars& scalars) const;
  Index workspace_bytes(const Execution& execution) const;

  // An operand without its address, so that a run only fills in rows and pointers.
  struct Layout {
    Operand at_one_row;
    bool batched;
  };
  // Nodes that touch no memory of each other's run without a barrier between them.
  void find_barriers();

  const Backend& backend_;
  Graph graph_;
  Index capacity_;
  std::vector<Layout> layout_;       // by value
  std::vector<bool> barrier_after_;  // by node
  Placement placement_;
  bool calls_python_ = false, flushes_ = false;
  double flops_per_row_ = 0;
  mutable std::mutex pool_mutex_;
  mutable std::vector<std::unique_ptr<Execution>> pool_;
};

// Returns its execution to the pool at the end of the scope.
class Lease {
 public:
  Lease(const Program& program, int members) : program_(program), execution_(program.checkout(members)) {}
  ~Lease() { program_.give_back(std::move(execution_)); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Execution& operator*() const { return *execution_; }
  Execution* operator->() const { return execution_.get(); }

 private:
  const Program& program_;
  std::unique_ptr<Execution> execution_;
};

// With GEMMULE_VERBOSE=1, or set here, every op says its shapes, path, ISA and time on stderr.
bool verbose();
void set_verbose(bool on);

// Test hook: what workspaces are filled with when they are made (0xff: NaN), as no op may read what it has
// not written.
void fill_workspaces(std::optional<std::uint8_t> byte);

}  // namespace gemmule
