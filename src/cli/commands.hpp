// The subcommands. Each is one function in the file of its name (those that need libtorch in torch/):
// it adds its flags, help and examples to the program and sets a callback. Add a line here and one in
// commands.cpp.
#pragma once

#include "cli/command_line.hpp"

namespace sinew::cli {

void add_commands(Command app);
void add_chat(Command app);
void add_convert(Command app);
void add_bench(Command app);
void add_bench_infer(Command bench);
void add_bench_train(Command bench);  // with libtorch
void add_bench_lean(Command bench);   // with libtorch
void add_eval(Command app);
void add_data(Command app);
void add_doctor(Command app);
void add_quantize(Command app);
void add_inspect(Command app);
void add_generate(Command app);
void add_logits(Command app);
void add_export(Command app);
void add_plot(Command app);
void add_plan(Command app);
void add_schedule(Command app);
void add_tokenizer(Command app);
void add_trace(Command app);
void add_train(Command app);  // torch/

}  // namespace sinew::cli
