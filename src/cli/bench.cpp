// sinew bench: what is measured is in files of its own; training needs libtorch (torch/bench.cpp).
#include "cli/commands.hpp"

namespace sinew::cli {

void add_bench(Command app) {
  Command bench = app.add_subcommand("bench", "Measure this machine").require_subcommand(1);
  add_bench_infer(bench);
#ifdef SINEW_TRAIN
  add_bench_train(bench);
  add_bench_lean(bench);
#endif
}

}  // namespace sinew::cli
