#include "text/dataset.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checksum.hpp"
#include "base/error.hpp"

namespace sinew {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and mapped as they are");

using Json = nlohmann::ordered_json;

Json to_json(const SplitInfo& split) {
  return {{"tokens", split.tokens},
          {"documents", split.documents},
          {"bytes", split.bytes},
          {"shards", to_json(split.shards)}};
}

// Names come from a file anyone may have written: they must stay inside the directory.
std::string plain_name(const Json& value) {
  auto name = value.get<std::string>();
  require(!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
              name.find('\0') == std::string::npos,
          "\"{}\" is not a plain file name", name);
  return name;
}

SplitInfo split_from(const Json& json) {
  SplitInfo split;
  std::uint64_t tokens = 0, documents = 0, bytes = 0;
  split.tokens = json.at("tokens").get<std::uint64_t>();
  split.documents = json.at("documents").get<std::uint64_t>();
  split.bytes = json.at("bytes").get<std::uint64_t>();
  for (const auto& s : json.at("shards")) {
    split.shards.push_back({plain_name(s.at("file")), plain_name(s.at("index")),
                            s.at("tokens").get<std::uint64_t>(), s.at("documents").get<std::uint64_t>(),
                            s.at("bytes").get<std::uint64_t>(), s.at("checksum").get<std::string>(),
                            s.at("index_checksum").get<std::string>()});
    require(split.shards.back().tokens < (std::uint64_t{1} << 48) &&
                split.shards.back().documents < (std::uint64_t{1} << 48),
            "shard {} has impossible counts", split.shards.back().file);
    tokens += split.shards.back().tokens;
    documents += split.shards.back().documents;
    bytes += split.shards.back().bytes;
  }
  require(tokens == split.tokens && documents == split.documents && bytes == split.bytes,
          "the counts of a split are not the sums of its shards'");
  return split;
}

DataSetInfo info_from(const Json& json) {
  require(json.value("format", "") == "sinew-data", "not a Sinew data set");
  require(json.at("version").get<int>() == 1, "version {} of the format, this program reads 1",
          json.at("version").get<int>());
  DataSetInfo info;
  info.token_bytes = json.at("token_bytes").get<int>();
  require(info.token_bytes == 2 || info.token_bytes == 4, "token_bytes must be 2 or 4");
  info.vocab_size = json.at("vocab_size").get<std::int64_t>();
  require(info.vocab_size > 0 && info.vocab_size <= (std::int64_t{1} << (info.token_bytes == 2 ? 16 : 31)),
          "impossible vocab_size {}", info.vocab_size);
  if (!json.at("eos").is_null()) info.eos = json.at("eos").get<TokenId>();
  info.tokenizer = plain_name(json.at("tokenizer").at("file"));
  info.tokenizer_checksum = json.at("tokenizer").at("checksum").get<std::string>();
  info.duplicates = json.at("duplicates").get<std::uint64_t>();
  info.settings = json.at("settings");
  info.train = split_from(json.at("splits").at("train"));
  info.validation = split_from(json.at("splits").at("validation"));
  return info;
}

// Maps a shard's file and says what is wrong with its size.
MappedFile map_sized(const fs::path& path, std::uint64_t expected) {
  std::error_code error;
  require(fs::exists(path, error), "{}: missing; make the data set again with `sinew data`", path.string());
  MappedFile file(path);
  require(file.size() == expected, "{}: {}: {} bytes, {} expected; make the data set again with `sinew data`",
          path.string(), file.size() < expected ? "truncated" : "too long", file.size(), expected);
  return file;
}

std::uint64_t index_at(const MappedFile& index, std::uint64_t i) {
  std::uint64_t value = 0;
  std::memcpy(&value, index.data() + i * 8, 8);
  return value;
}

TokenId token_at(const std::byte* data, std::uint64_t i, int width) {
  if (width == 2) {
    std::uint16_t id = 0;
    std::memcpy(&id, data + i * 2, 2);
    return id;
  }
  std::uint32_t id = 0;
  std::memcpy(&id, data + i * 4, 4);
  return static_cast<TokenId>(id);  // over 2^31 becomes negative: outside every vocabulary
}

void check_shard(const fs::path& directory, const DataSetInfo& info, const ShardInfo& shard) {
  const auto width = static_cast<std::uint64_t>(info.token_bytes);
  const MappedFile tokens = map_sized(directory / shard.file, shard.tokens * width);
  const MappedFile index = map_sized(directory / shard.index, shard.documents * 8);
  const auto sound = [](const MappedFile& file, const std::string& checksum) {
    require(
        hex64(xxh3(file.data(), file.size())) == checksum,
        "{}: damaged: its checksum is not that of dataset.json; make the data set again with `sinew data`",
        file.path().string());
  };
  sound(tokens, shard.checksum);
  sound(index, shard.index_checksum);
  std::uint64_t before = 0;
  for (std::uint64_t i = 0; i < shard.documents; ++i) {
    const std::uint64_t end = index_at(index, i);
    require(end > before && end <= shard.tokens, "{}: document {} ends at token {}, out of order",
            index.path().string(), i, end);
    before = end;
  }
  require(before == shard.tokens, "{}: its documents end at token {} of {}", index.path().string(), before,
          shard.tokens);
  for (std::uint64_t i = 0; i < shard.tokens; ++i) {
    const TokenId id = token_at(tokens.data(), i, info.token_bytes);
    require(id >= 0 && id < info.vocab_size, "{}: token {} has id {}, the vocabulary has {}",
            tokens.path().string(), i, id, info.vocab_size);
  }
}

}  // namespace

bool is_data_set(const fs::path& directory) {
  std::error_code error;
  return fs::exists(directory / kDataSetFile, error) || fs::exists(directory / kUnfinishedFile, error);
}

DataSetInfo read_data_set(const fs::path& directory) {
  const fs::path path = directory / kDataSetFile;
  std::error_code error;
  require(fs::exists(directory, error), "{}: no such data set; make one with `sinew data`",
          directory.string());
  if (!fs::exists(path, error)) {
    require(!fs::exists(directory / kUnfinishedFile, error),
            "{}: an unfinished data set; run the same `sinew data` command again to finish it",
            directory.string());
    fail("{}: not a data set (no {}); make one with `sinew data`", directory.string(), kDataSetFile);
  }
  try {
    return info_from(Json::parse(read_file(path, std::uint64_t{1} << 28)));
  } catch (const nlohmann::json::exception& bad) {
    fail("{}: damaged: {}", path.string(), bad.what());
  } catch (const IoError&) {
    throw;
  } catch (const UserError& bad) {
    fail("{}: {}", path.string(), bad.what());
  }
}

Json to_json(const std::vector<ShardInfo>& list) {
  Json shards = Json::array();
  for (const auto& s : list)
    shards.push_back({{"file", s.file},
                      {"index", s.index},
                      {"tokens", s.tokens},
                      {"documents", s.documents},
                      {"bytes", s.bytes},
                      {"checksum", s.checksum},
                      {"index_checksum", s.index_checksum}});
  return shards;
}

nlohmann::ordered_json to_json(const DataSetInfo& info) {
  Json json{{"format", "sinew-data"},
            {"version", 1},
            {"token_bytes", info.token_bytes},
            {"vocab_size", info.vocab_size},
            {"eos", nullptr},
            {"tokenizer", {{"file", info.tokenizer}, {"checksum", info.tokenizer_checksum}}},
            {"duplicates", info.duplicates},
            {"settings", info.settings},
            {"splits", {{"train", to_json(info.train)}, {"validation", to_json(info.validation)}}}};
  if (info.eos) json["eos"] = *info.eos;
  return json;
}

DataSetInfo check_data_set(const fs::path& directory) {
  DataSetInfo info = read_data_set(directory);
  const fs::path tokenizer = directory / info.tokenizer;
  require(file_checksum(tokenizer) == info.tokenizer_checksum,
          "{}: not the tokenizer this data set was made with (its checksum differs)", tokenizer.string());
  for (const auto* split : {&info.train, &info.validation})
    for (const auto& shard : split->shards) check_shard(directory, info, shard);
  return info;
}

void check_vocabulary(std::int64_t data_vocab_size, std::int64_t model_vocab_size, std::string_view model) {
  require(data_vocab_size <= model_vocab_size,
          "vocabulary mismatch: the data's tokenizer has {} tokens, {} only {}; set vocab_size to {} or "
          "more, or make "
          "the data with the model's tokenizer",
          data_vocab_size, model, model_vocab_size, data_vocab_size);
}

std::string file_checksum(const fs::path& path) {
  const MappedFile file(path);
  return hex64(xxh3(file.data(), file.size()));
}

MappedSplit::MappedSplit(const fs::path& directory, const DataSetInfo& info, const SplitInfo& split)
    : token_bytes_(info.token_bytes), vocab_size_(info.vocab_size) {
  for (const auto& shard : split.shards) {
    const auto width = static_cast<std::uint64_t>(token_bytes_);
    shards_.push_back({map_sized(directory / shard.file, shard.tokens * width),
                       map_sized(directory / shard.index, shard.documents * 8), tokens_, shard.tokens,
                       shard.documents});
    tokens_ += shard.tokens;
  }
}

void MappedSplit::read(std::uint64_t first, std::span<TokenId> out, std::span<std::int32_t> documents) const {
  ensure(first + out.size() <= tokens_ && documents.size() == out.size(), "tokens {} + {} of {}", first,
         out.size(), tokens_);
  auto shard = std::upper_bound(shards_.begin(), shards_.end(), first,
                                [](std::uint64_t at, const Shard& s) { return at < s.first; }) -
               1;
  std::int32_t ordinal = 0;
  for (std::size_t done = 0; done < out.size(); ++shard, ++ordinal) {  // No document crosses shards.
    std::uint64_t at = first + done - shard->first;
    std::uint64_t low = 0, high = shard->documents;  // the first document that ends after `at`
    while (low < high) {
      const std::uint64_t middle = (low + high) / 2;
      index_at(shard->index, middle) > at ? high = middle : low = middle + 1;
    }
    const auto end_of = [&](std::uint64_t i) {
      return i < shard->documents ? index_at(shard->index, i) : shard->count;
    };
    std::uint64_t end = end_of(low);
    const std::size_t stop = std::min<std::uint64_t>(out.size(), done + (shard->count - at));
    for (; done < stop; ++done, ++at) {
      if (at >= end) {
        end = end_of(++low);
        ++ordinal;
      }
      const TokenId id = token_at(shard->tokens.data(), at, token_bytes_);
      require(id >= 0 && id < vocab_size_, "{}: damaged: token {} has id {}, the vocabulary has {}",
              shard->tokens.path().string(), at, id, vocab_size_);
      out[done] = id;
      documents[done] = ordinal;
    }
  }
}

}  // namespace sinew
