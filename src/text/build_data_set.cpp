#include "text/build_data_set.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

#include "base/checksum.hpp"
#include "base/log.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "text/shard_writer.hpp"
#include "text/split_plan.hpp"

namespace sinew {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;
constexpr std::uint64_t kTokenizerBytes = std::uint64_t{1} << 28;

struct HashOfHash {
  std::size_t operator()(const Hash128& hash) const { return hash.low; }
};
using HashSet = std::unordered_set<Hash128, HashOfHash>;

Hash128 hash_of(const std::string& text) { return xxh3_128(text.data(), text.size()); }

// The file of a tokenizer directory that load_tokenizer reads.
fs::path tokenizer_file(const fs::path& path) {
  if (!fs::is_directory(path)) return path;
  return fs::is_regular_file(path / "tokenizer.json") ? path / "tokenizer.json" : path / "tokenizer.model";
}

// The name under which everyone finds a tokenizer's copy, whatever its file was called.
std::string standard_name(const fs::path& file) {
  const MappedFile map(file);
  const std::string_view text(reinterpret_cast<const char*>(map.data()), map.size());
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') return "tokenizer.json";
  return text.starts_with("GGUF") ? "tokenizer.gguf" : "tokenizer.model";
}

Json settings_of(const DataSetOptions& o, const std::vector<fs::path>& files,
                 const std::string& tokenizer_checksum) {
  Json inputs = Json::array();
  for (const auto& file : files) inputs.push_back({{"path", file.string()}, {"bytes", fs::file_size(file)}});
  return {{"tokenizer", tokenizer_checksum},          {"val_fraction", o.val_fraction},
          {"separator", o.documents.separator},       {"field", o.documents.field},
          {"max_document", o.documents.max_document}, {"dedup", o.dedup},
          {"shard_tokens", o.shard_tokens},           {"inputs", inputs}};
}

std::string difference(const Json& was, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    if (was.contains(key) && was.at(key) == value) continue;
    if (key == "inputs") return "other input files";
    if (key == "tokenizer") return "another tokenizer";
    return fmt::format("{} = {}, now {}", key, was.contains(key) ? was.at(key).dump() : "unset",
                       value.dump());
  }
  return "other settings";
}

void require_same(const fs::path& out, const char* what, const Json& was, const Json& now) {
  require(was == now, "{}: holds {} data set made with {}; choose another --out or delete it", out.string(),
          what, was == now ? "" : difference(was, now));
}

// Only one process at a time may write a data set.
class DirectoryLock {
 public:
  explicit DirectoryLock(const fs::path& directory) : path_(directory / ".lock") {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) throw IoError(fmt::format("{}: cannot write here: {}", directory.string(), system_reason()));
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(fd_);
    fail("{}: another `sinew data` is writing here", directory.string());
  }
  ~DirectoryLock() {
    ::unlink(path_.c_str());
    ::close(fd_);
  }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  fs::path path_;
  int fd_ = -1;
};

struct Batch {
  std::vector<Document> documents;
  std::vector<Hash128> hashes;
  std::uint64_t read = 0, duplicates = 0;  // documents taken from the reader, and how many of them left out
  std::uint64_t bytes_read = 0;
};

class Build {
 public:
  Build(const DataSetOptions& options, const Tokenizer& tokenizer, const fs::path& file)
      : o_(options), tokenizer_(tokenizer), tokenizer_path_(file), files_(corpus_files(options.inputs)) {
    require(o_.val_fraction >= 0 && o_.val_fraction <= 0.5, "--val-fraction: {} is not in [0, 0.5]",
            o_.val_fraction);
    require(o_.shard_tokens > 0, "--shard-tokens: must be at least 1");
    info_.vocab_size = tokenizer.vocab_size();
    require(info_.vocab_size > 0 && info_.vocab_size <= (std::int64_t{1} << 31),
            "{}: impossible vocabulary of {}", file.string(), info_.vocab_size);
    info_.token_bytes = info_.vocab_size <= 65536 ? 2 : 4;
    info_.eos = tokenizer.eos();
    info_.tokenizer = standard_name(file);
    info_.tokenizer_checksum = file_checksum(file);
    info_.settings = settings_of(o_, files_, info_.tokenizer_checksum);
  }

  DataSetResult run() {
    DataSetResult result;
    if (fs::exists(o_.out / kDataSetFile)) {
      result.info = read_data_set(o_.out);
      require_same(o_.out, "a finished", result.info.settings, info_.settings);
      result.was_complete = true;
      fs::remove(o_.out / kUnfinishedFile);  // left when the work was stopped between its last two steps
      return result;
    }
    // Everything that can be wrong with the input is found before anything is written.
    if (unfinished())
      load_state();
    else
      require_empty();
    plan_split();
    make_directories(o_.out);
    const DirectoryLock lock(o_.out);
    Json state;
    if (unfinished())
      state = load_state();
    else
      start();
    result.resumed = state.is_object() && state.at("documents").get<std::uint64_t>() > 0;
    encode_all(state);
    finish();
    result.info = info_;
    return result;
  }

 private:
  bool unfinished() const { return fs::exists(o_.out / kUnfinishedFile); }

  void require_empty() const {
    if (!fs::exists(o_.out)) return;
    require(fs::is_directory(o_.out), "--out: {} is a file, not a directory", o_.out.string());
    for (const auto& entry : fs::directory_iterator(o_.out))
      require(entry.path().filename() == ".lock",
              "--out: {} is not empty and no data set; choose another directory", o_.out.string());
  }

  Json modified_times() const {
    Json times = Json::array();
    for (const auto& file : files_) times.push_back(fs::last_write_time(file).time_since_epoch().count());
    return times;
  }

  Json load_state() const {
    const fs::path path = o_.out / kUnfinishedFile;
    Json state;
    try {
      state = Json::parse(read_file(path, std::uint64_t{1} << 28));
      require_same(o_.out, "an unfinished", state.at("settings"), info_.settings);
      require(state.at("modified") == modified_times(),
              "{}: the input files changed since the work stopped; delete the directory and start again",
              o_.out.string());
    } catch (const nlohmann::json::exception& error) {
      fail("{}: damaged ({}); delete the directory and start again", path.string(), error.what());
    }
    return state;
  }

  // Reads the corpus (or its beginning, when there is more than enough) to choose what is held out.
  void plan_split() {
    std::vector<SplitPlan::Seen> seen;
    DocumentReader reader(files_, o_.documents);
    Progress progress("looking through", reader.bytes_total(), "bytes");
    for (Document document; seen.size() <= kPlannedDocuments && reader.next(document);) {
      seen.push_back({hash_of(document.text), document.text.size()});
      progress.update(reader.bytes_read());
      stop_if_asked();
    }
    require(!seen.empty(), "{}: the corpus is empty: no document has any text", o_.inputs.front().string());
    plan_ = seen.size() > kPlannedDocuments ? SplitPlan::by_hash(o_.val_fraction)
                                            : SplitPlan::of_all(std::move(seen), o_.val_fraction);
  }

  void start() {
    if (!info_.eos)
      log::warn("{}: has no end-of-text token; documents follow one another without one",
                tokenizer_path_.string());
    copy(tokenizer_path_, info_.tokenizer);
    const fs::path beside = tokenizer_path_.parent_path() / "tokenizer_config.json";
    if (fs::exists(beside)) copy(beside, "tokenizer_config.json");
    save(nullptr, nullptr);
  }

  void copy(const fs::path& from, const std::string& name) const {
    write_file_atomic(o_.out / name, read_file(from, kTokenizerBytes));
  }

  void save(ShardWriter* train, ShardWriter* validation) {
    Json splits = Json::object();
    for (auto [name, writer] : {std::pair("train", train), std::pair("validation", validation)}) {
      if (writer != nullptr) writer->sync();
      splits[name] = writer != nullptr ? writer->state() : Json();
    }
    const Json state{{"settings", info_.settings},
                     {"modified", modified_times()},
                     {"documents", documents_},
                     {"duplicates", info_.duplicates},
                     {"splits", splits}};
    write_file_atomic(o_.out / kUnfinishedFile, state.dump(1) + "\n");
    saved_ = Clock::now();
  }

  void stop_if_asked() const {
    if (const int signal = stop_requested())
      throw Interrupted(o_.out.string() + ": stopped; run the same command again to go on", signal);
  }

  void encode_all(const Json& state) {
    DocumentReader reader(files_, o_.documents);
    Progress progress("encoding", reader.bytes_total(), "bytes");
    if (state.is_object()) catch_up(reader, state, progress);
    const auto part = [&](const char* name) {
      return state.is_object() ? state.at("splits").at(name) : Json();
    };
    ShardWriter train(o_.out, "train", info_.token_bytes, o_.shard_tokens, part("train"));
    ShardWriter validation(o_.out, "validation", info_.token_bytes, o_.shard_tokens, part("validation"));
    saved_ = Clock::now();
    // One batch is read while the one before it is encoded.
    const auto read = [&] { return std::async(std::launch::async, [&] { return read_batch(reader); }); };
    auto next = read();
    for (;;) {
      const Batch batch = next.get();
      if (batch.read == 0) break;
      next = read();
      encode(batch, train, validation);
      documents_ += batch.read;
      info_.duplicates += batch.duplicates;
      progress.update(batch.bytes_read);
      const bool stop = stop_requested() != 0;
      if (stop || std::chrono::duration<double>(Clock::now() - saved_).count() >= o_.save_seconds)
        save(&train, &validation);
      if (stop) next.wait();
      stop_if_asked();
    }
    info_.train = train.finish();
    info_.validation = validation.finish();
    progress.update(reader.bytes_total());
    progress.finish();
  }

  // Reads past the documents that are done.
  void catch_up(DocumentReader& reader, const Json& state, Progress& progress) {
    const auto done = state.at("documents").get<std::uint64_t>();
    info_.duplicates = state.at("duplicates").get<std::uint64_t>();
    Document document;
    for (; documents_ < done; ++documents_) {
      require(reader.next(document),
              "{}: the input files changed since the work stopped; delete the directory and "
              "start again",
              o_.out.string());
      if (o_.dedup) seen_.insert(hash_of(document.text));
      progress.update(reader.bytes_read());
      stop_if_asked();
    }
  }

  Batch read_batch(DocumentReader& reader) {
    Batch batch;
    std::size_t bytes = 0;
    for (Document document; bytes < o_.batch_bytes && reader.next(document);) {
      ++batch.read;
      const Hash128 hash = hash_of(document.text);
      if (o_.dedup && !seen_.insert(hash).second) {
        ++batch.duplicates;
        bytes += 1;  // A batch of nothing but duplicates ends too.
        continue;
      }
      bytes += document.text.size();
      batch.hashes.push_back(hash);
      batch.documents.push_back(std::move(document));
    }
    batch.bytes_read = reader.bytes_read();
    return batch;
  }

  std::vector<TokenId> tokens_of(std::string_view text) const {
    auto tokens = tokenizer_.encode(text, false, false);
    for (const TokenId id : tokens)
      ensure(id >= 0 && id < info_.vocab_size, "the tokenizer gave id {} of {}", id, info_.vocab_size);
    if (info_.eos) tokens.push_back(*info_.eos);
    return tokens;
  }

  void encode(const Batch& batch, ShardWriter& train, ShardWriter& validation) const {
    struct Encoded {
      std::vector<TokenId> train, validation;
      std::size_t cut = 0;  // bytes of the text in train
    };
    std::vector<Encoded> encoded(batch.documents.size());
    parallel_for(encoded.size(), 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const std::string_view text = batch.documents[i].text;
        Encoded& out = encoded[i];
        out.cut =
            plan_.holds_out(batch.hashes[i]) ? 0 : plan_.cut(batch.hashes[i], text).value_or(text.size());
        if (out.cut > 0) out.train = tokens_of(text.substr(0, out.cut));
        if (out.cut < text.size()) out.validation = tokens_of(text.substr(out.cut));
      }
    });
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      if (!encoded[i].train.empty()) train.add(encoded[i].train, encoded[i].cut);
      if (!encoded[i].validation.empty())
        validation.add(encoded[i].validation, batch.documents[i].text.size() - encoded[i].cut);
    }
  }

  // Removes what a killed attempt left behind, and makes the data set valid.
  void finish() {
    std::set<std::string> ours;
    for (const auto* split : {&info_.train, &info_.validation})
      for (const auto& shard : split->shards) ours.insert({shard.file, shard.index});
    for (const auto& entry : fs::directory_iterator(o_.out)) {
      const std::string name = entry.path().filename(), ending = entry.path().extension();
      const bool shard = ending == ".bin" || ending == ".idx", temporary = ending.starts_with(".tmp");
      if (temporary || (shard && !ours.contains(name))) fs::remove(entry.path());
    }
    write_file_atomic(o_.out / kDataSetFile, to_json(info_).dump(1) + "\n");
    fs::remove(o_.out / kUnfinishedFile);
    sync_directory(o_.out);
  }

  const DataSetOptions& o_;
  const Tokenizer& tokenizer_;
  fs::path tokenizer_path_;
  std::vector<fs::path> files_;
  DataSetInfo info_;
  SplitPlan plan_;
  HashSet seen_;
  std::uint64_t documents_ = 0;  // taken from the reader and written
  Clock::time_point saved_;
};

}  // namespace

DataSetResult build_data_set(const DataSetOptions& options, const Tokenizer& tokenizer,
                             const fs::path& file) {
  try {
    return Build(options, tokenizer, file).run();
  } catch (const fs::filesystem_error& error) {  // a folder that may not be read, say
    throw IoError(fmt::format("{}: {}", error.path1().string(), error.code().message()));
  }
}

DataSetResult build_data_set(const DataSetOptions& options) {
  const auto tokenizer = load_tokenizer(options.tokenizer);
  return build_data_set(options, *tokenizer, tokenizer_file(options.tokenizer));
}

}  // namespace sinew
