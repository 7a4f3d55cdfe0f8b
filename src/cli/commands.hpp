// The subcommands. Each is one function in the file of its name (those that need libtorch in torch/):
// it adds its flags, help and examples to the program and sets a callback. Add a line here and one in
// commands.cpp.
#pragma once

#include <CLI/CLI.hpp>

namespace sinew::cli {

void add_commands(CLI::App& app);
void add_chat(CLI::App& app);
void add_convert(CLI::App& app);
void add_bench(CLI::App& app);
void add_bench_infer(CLI::App& bench);
void add_bench_train(CLI::App& bench);  // with libtorch
void add_bench_lean(CLI::App& bench);   // with libtorch
void add_eval(CLI::App& app);
void add_data(CLI::App& app);
void add_doctor(CLI::App& app);
void add_quantize(CLI::App& app);
void add_inspect(CLI::App& app);
void add_generate(CLI::App& app);
void add_logits(CLI::App& app);
void add_export(CLI::App& app);
void add_plot(CLI::App& app);
void add_plan(CLI::App& app);
void add_schedule(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_trace(CLI::App& app);
void add_train(CLI::App& app);  // torch/

}  // namespace sinew::cli
