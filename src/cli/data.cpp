// sinew data: a corpus to token shards.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/signals.hpp"
#include "base/text.hpp"
#include "cli/commands.hpp"
#include "text/build_data_set.hpp"

namespace sinew::cli {
namespace {

struct Options {
  DataSetOptions data;
  std::vector<std::string> inputs;
  std::string tokenizer, out;
  bool json = false;
};

void print_split(const char* name, const SplitInfo& split) {
  fmt::print("  {:<11} {:>15} tokens {:>12} documents {:>12} of text, {:.2f} bytes a token, {} shard{}\n",
             name, with_commas(split.tokens), with_commas(split.documents),
             human_bytes(static_cast<double>(split.bytes)),
             split.tokens > 0 ? static_cast<double>(split.bytes) / static_cast<double>(split.tokens) : 0.0,
             split.shards.size(), split.shards.size() == 1 ? "" : "s");
}

void run(Options& o) {
  o.data.inputs.assign(o.inputs.begin(), o.inputs.end());
  o.data.tokenizer = o.tokenizer;
  o.data.out = o.out;
  catch_stop_signals();
  const DataSetResult result = build_data_set(o.data);
  const DataSetInfo& info = result.info;
  if (o.json) {
    nlohmann::ordered_json json = to_json(info);
    json["already_complete"] = result.was_complete;
    json["resumed"] = result.resumed;
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("{}: {}\n", o.out,
             result.was_complete ? "already complete, nothing to do"
             : result.resumed    ? "complete (resumed)"
                                 : "complete");
  print_split("train", info.train);
  print_split("validation", info.validation);
  if (info.duplicates > 0) fmt::print("  {} duplicate documents left out\n", with_commas(info.duplicates));
}

}  // namespace

void add_data(Command app) {
  auto o = std::make_shared<Options>();
  Command command = app.add_subcommand("data", "Turn text into token shards for training");
  command.footer(
      "Inputs are text, JSON lines (.jsonl, .ndjson, .json) and directories of them, also as .gz, .zst and "
      ".bz2.\n"
      "Stopped in any way and run again, the work goes on; the files are those of an unbroken run.\n"
      "Where a text file is cut into documents (--separator):\n"
      "  auto        at form feeds or <|endoftext|> where the file has them, else as paragraphs\n"
      "  paragraphs  at a blank line, once a document has 2 KiB\n"
      "  blank       at every blank line\n"
      "  file        nowhere: one file is one document\n"
      "  other text  at that text; \\n, \\t, \\f and \\\\ are understood\n"
      "Examples:\n"
      "  sinew data book.txt --tokenizer tokenizer.json --out data\n"
      "  sinew data corpus/ more.jsonl.zst --field content --dedup --tokenizer model/ --out data\n"
      "The format: docs/data-format.md. Check a data set with `sinew inspect DIR`.");
  command.add_option("inputs", o->inputs, "Files and directories, in this order").required();
  command.add_option("--tokenizer", o->tokenizer, "Tokenizer file, or a directory that holds one").required();
  command.add_option("--out", o->out, "Directory of the data set").required();
  command
      .add_option("--val-fraction", o->data.val_fraction,
                  "Share of the text held out, by document (0 to 0.5)")
      .capture_default_str();
  command
      .add_option("--field", o->data.documents.field,
                  "Field of JSON lines that holds the text (or a /JSON/pointer)")
      .capture_default_str();
  command
      .add_option("--separator", o->data.documents.separator,
                  "Where text files are cut into documents (see below)")
      .capture_default_str();
  command.add_flag("--dedup", o->data.dedup, "Leave out documents whose text came before");
  command.add_option("--shard-tokens", o->data.shard_tokens, "Tokens after which a new shard is begun")
      .capture_default_str();
  command.add_option("--save-seconds", o->data.save_seconds, "How often the state is saved, to resume from")
      .capture_default_str();
  command.add_flag("--json", o->json, "Print the result as JSON");
  command.callback([o] { run(*o); });
}

}  // namespace sinew::cli
