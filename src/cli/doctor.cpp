// sinew doctor: what this machine offers, and what is missing.
#include "cli/doctor.hpp"

#include <fmt/format.h>

#include <memory>

#include "base/machine.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/commands.hpp"
#include "kernels/isa.hpp"
#include "kernels/matmul_peak.hpp"
#include "kernels/read_bandwidth.hpp"

namespace sinew::cli {
namespace {

constexpr std::uint64_t kLittleDisk = std::uint64_t{2} << 30, kLittleMemory = std::uint64_t{2} << 30;

void add_processor(const Machine& machine, Diagnosis& d) {
  std::vector<std::string> sets;
  for (const Isa isa : available_isas()) sets.emplace_back(isa_name(isa));
  d.facts["system"] = {{"name", machine.system}, {"kernel", machine.kernel}};
  d.facts["processor"] = {{"name", machine.processor},
                          {"cores", machine.cores},
                          {"cores_online", machine.cores_online},
                          {"cpu_quota", machine.cpu_quota},
                          {"threads", default_threads()},
                          {"instruction_sets", sets},
                          {"instruction_set_used", isa_name(active_isa())}};
  d.lines.emplace_back("system", fmt::format("{}, Linux {}", machine.system, machine.kernel));
  d.lines.emplace_back("processor",
                       fmt::format("{}, {} of {} logical cores, {} threads used", machine.processor,
                                   machine.cores, machine.cores_online, default_threads()));
  d.lines.emplace_back("kernels", fmt::format("{} (of {})", isa_name(active_isa()), join(sets, ", ")));
  if (machine.cpu_quota > 0 && machine.cpu_quota < default_threads())
    d.advice.push_back(fmt::format("a control group grants {:.1f} cores to {} threads: set SINEW_THREADS={}",
                                   machine.cpu_quota, default_threads(),
                                   std::max(1, static_cast<int>(machine.cpu_quota))));
  if (best_isa() == Isa::scalar)
    d.advice.emplace_back("the processor has no AVX2: everything works, about ten times slower");
  if (active_isa() < best_isa())
    d.advice.push_back(fmt::format("SINEW_ISA={} holds the kernels below {}: unset it",
                                   isa_name(active_isa()), isa_name(best_isa())));
}

void add_memory(const Machine& machine, bool measure, Diagnosis& d) {
  d.facts["memory"] = {{"bytes", machine.memory}, {"free", machine.memory_free}};
  auto text = fmt::format("{}, {} free", human_bytes(static_cast<double>(machine.memory)),
                          human_bytes(static_cast<double>(machine.memory_free)));
  if (measure) {
    const double bandwidth = measure_memory_bandwidth();
    d.facts["memory"]["bandwidth"] = bandwidth;
    text += fmt::format(", {:.1f} GB/s (triad)", bandwidth / 1e9);
  }
  d.lines.emplace_back("memory", text);
  if (machine.memory_free < kLittleMemory)
    d.advice.push_back(fmt::format("only {} of memory are free: the demo needs about 2 GiB",
                                   human_bytes(static_cast<double>(machine.memory_free))));
}

void add_disk(Diagnosis& d) {
  const auto here = disk_space(".");
  d.facts["disk"] = {{"free", here.free}, {"bytes", here.size}};
  d.lines.emplace_back("disk",
                       fmt::format("{} free in this folder", human_bytes(static_cast<double>(here.free))));
  if (here.free < kLittleDisk)
    d.advice.push_back(
        fmt::format("only {} of disk are free in this folder: checkpoints of the demo take about 1 GiB",
                    human_bytes(static_cast<double>(here.free))));
}

// What decoding and prefill of quantized models are held against.
void add_inference_limits(Diagnosis& d) {
  const ReadBandwidth reading = read_bandwidth();
  const double products = int8_peak();
  d.facts["inference"] = {{"read_bandwidth", reading.bytes_per_second},
                          {"bytes_read", reading.bytes},
                          {"streams", reading.pattern.streams},
                          {"prefetch", reading.pattern.far},
                          {"int8_ops", products}};
  d.lines.emplace_back("inference", fmt::format("reads {:.1f} GB/s, 8-bit products {:.0f} GOP/s",
                                                reading.bytes_per_second / 1e9, products / 1e9));
}

void run(bool json, bool measure) {
  const Machine machine = this_machine();
  Diagnosis d;
  d.facts["version"] = SINEW_VERSION;
  add_processor(machine, d);
  add_memory(machine, measure, d);
  add_disk(d);
  d.facts["gpus"] = machine.gpus;
  d.lines.emplace_back("GPU", machine.gpus.empty() ? "none" : join(machine.gpus, ", "));
  if (measure) {
    const MatmulPeak own = matmul_peak();
    add_products(d, "sinew", own.fp32, own.bf16);
    add_inference_limits(d);
  }
#ifdef SINEW_TRAIN
  add_torch_diagnosis(d, measure);
#else
  d.facts["libtorch"] = nullptr;
  d.lines.emplace_back("libtorch", "left out of this build (SINEW_TRAIN=OFF): no train");
#endif
  d.facts["advice"] = d.advice;
  if (json) {
    fmt::print("{}\n", d.facts.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    return;
  }
  fmt::print("sinew {}\n", SINEW_VERSION);
  for (const auto& [name, value] : d.lines) fmt::print("  {:<10} {}\n", name, value);
  if (d.advice.empty()) fmt::print("Nothing is missing.\n");
  for (const auto& text : d.advice) fmt::print("! {}\n", text);
}

}  // namespace

void add_products(Diagnosis& d, const std::string& where, double fp32, double bf16) {
  d.facts["gemm_peak"][where] = {{"fp32_flops", fp32}, {"bf16_flops", bf16}};
  d.lines.emplace_back("products",
                       fmt::format("{}: fp32 {:.1f}, bf16 {:.1f} GFLOP/s", where, fp32 / 1e9, bf16 / 1e9));
}

void add_doctor(Command app) {
  struct Options {
    bool json = false, quick = false;
  };
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand("doctor", "Say what this machine offers and what is missing");
  command.footer(
      "Measures matrix products (2048 x 2048, fp32 and bf16) and memory bandwidth, about four seconds.\n"
      "Examples:\n"
      "  sinew doctor\n"
      "  sinew doctor --json | jq .gemm_peak\n"
      "  SINEW_THREADS=1 sinew doctor");
  command.add_flag("--json", options->json, "Print one JSON object (FLOP/s, bytes, bytes a second)");
  command.add_flag("--quick", options->quick, "Leave out what has to be measured");
  command.callback([options] { run(options->json, !options->quick); });
}

}  // namespace sinew::cli
