#include "cli/commands.hpp"

namespace sinew::cli {

// In the order of `sinew --help`.
void add_commands(Command app) {
  add_chat(app);
  add_convert(app);
  add_doctor(app);
  add_inspect(app);
  add_data(app);
  add_export(app);
  add_plot(app);
  add_plan(app);
  add_quantize(app);
  add_schedule(app);
  add_bench(app);
  add_eval(app);
  add_generate(app);
  add_logits(app);
#ifdef SINEW_TRAIN
  add_train(app);
#endif
  add_tokenizer(app);
  add_trace(app);
}

}  // namespace sinew::cli
