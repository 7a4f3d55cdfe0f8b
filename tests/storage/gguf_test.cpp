#include "storage/gguf.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "storage/gguf_writer.hpp"
#include "support/property.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

bool accepts(const std::string& file) {
  try {
    parse_gguf(bytes_of(file), "test");
    return true;
  } catch (const UserError&) {
    return false;
  }
}

// A sound file with one key of every kind and two tensors.
std::string sample_file() {
  const test::TempDir dir;
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_u32("a.u32", 7);
  metadata.set_i32("a.i32", -7);
  metadata.set_f32("a.f32", 0.5F);
  metadata.set_bool("a.bool", true);
  metadata.set_strings("a.strings", std::vector<std::string>{"x", "", "zzz"});
  metadata.set_i32s("a.i32s", std::vector<std::int32_t>{1, -2});
  metadata.set_f32s("a.f32s", std::vector<float>{1.5F});
  GgufTensor first{.name = "first", .type = 0, .shape = {3}},
      second{.name = "second", .type = 8, .shape = {32, 2}};
  GgufWriter writer(dir / "x.gguf", metadata, {first, second});
  const float values[3] = {1, 2, 3};
  writer.write(values, sizeof values);
  const std::string blocks(68, 'q');
  writer.write(blocks.data(), 30);
  writer.write(blocks.data(), 38);
  writer.commit();
  return test::slurp(dir / "x.gguf");
}

}  // namespace

TEST(Gguf, AgreesWithLlamaCppOnEveryFile) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "formats" / "gguf";
  const auto manifest = nlohmann::json::parse(test::slurp(folder / "manifest.json"));
  ASSERT_GE(manifest["files"].size(), 16u);
  for (const auto& entry : manifest["files"]) {
    const std::string name = entry["file"];
    EXPECT_EQ(accepts(test::slurp(folder / name)), entry["verdict"] == "accept") << name;
  }
}

TEST(Gguf, ReadsTheVocabulariesOfLlamaCpp) {
  SINEW_NEED_DATA();
  const Gguf file(test::data_dir() / "tokenizers" / "llama.cpp" / "ggml-vocab-llama-spm.gguf");
  EXPECT_EQ(file.get_string("general.architecture"), "llama");
  EXPECT_EQ(file.get_array("tokenizer.ggml.tokens").strings.size(), 32000u);
  EXPECT_EQ(file.get_array("tokenizer.ggml.scores").floats.size(), 32000u);
  EXPECT_EQ(file.get_array("tokenizer.ggml.tokens").strings[1], "<s>");
  EXPECT_THROW(file.get_int("general.architecture"), UserError);
  EXPECT_THROW(file.get_string("none"), UserError);
}

TEST(Gguf, ReadsWhatTheWriterWrites) {
  const test::TempDir dir;
  test::spit(dir / "x.gguf", sample_file());
  const Gguf file(dir / "x.gguf");
  EXPECT_EQ(file.metadata().size(), 8u);
  EXPECT_EQ(file.get_string("general.architecture"), "llama");
  EXPECT_EQ(file.get_int("a.u32"), 7);
  EXPECT_EQ(file.get_int("a.i32"), -7);
  EXPECT_EQ(file.get_float("a.f32"), 0.5);
  EXPECT_EQ(file.get_float("a.u32"), 7);
  EXPECT_TRUE(file.get_bool("a.bool"));
  EXPECT_EQ(file.get_array("a.strings").strings, (std::vector<std::string_view>{"x", "", "zzz"}));
  EXPECT_EQ(file.get_array("a.i32s").signeds, (std::vector<std::int64_t>{1, -2}));
  EXPECT_EQ(file.get_array("a.f32s").floats, std::vector<double>{1.5});
  const GgufTensor* second = file.find_tensor("second");
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->offset % 32, 0u);
  EXPECT_EQ(second->bytes, 68u);
  EXPECT_EQ(std::to_integer<char>(file.data(*second)[67]), 'q');
  EXPECT_EQ(std::to_integer<int>(file.data(*file.find_tensor("first"))[3]), 0x3f);
  EXPECT_EQ(file.find_tensor("third"), nullptr);
}

TEST(Gguf, MetadataIsCopiedAsItStands) {
  const std::string file = sample_file();
  const GgufHeader header = parse_gguf(bytes_of(file), "test");
  GgufMetadata copy;
  for (std::size_t i = 0; i < header.metadata.size(); ++i)
    copy.set_raw(header.metadata[i].first, header.raw[i]);
  const std::string bytes = copy.bytes();
  EXPECT_EQ(file.substr(24, bytes.size()), bytes);
  copy.set_u32("a.u32", 9);
  copy.erase("a.bool");
  EXPECT_EQ(copy.size(), header.metadata.size() - 1);
}

// Only a file that ends exactly where its data would begin is one of metadata; every other cut is an error.
TEST(Gguf, EveryTruncationIsNoticed) {
  const std::string file = sample_file();
  const std::uint64_t data = parse_gguf(bytes_of(file), "test").tensors[0].offset;
  for (std::size_t size = 0; size < file.size(); ++size) {
    const bool only_padding = size >= file.size() - 28;  // 68 bytes of the last tensor, 28 of padding
    EXPECT_EQ(accepts(file.substr(0, size)), size == data || only_padding) << size;
  }
  const test::TempDir dir;
  test::spit(dir / "x.gguf", file.substr(0, data));
  const Gguf metadata_only(dir / "x.gguf");
  EXPECT_THROW(metadata_only.data(metadata_only.tensors()[0]), UserError);
}

TEST(Gguf, DamagedFilesNeverCrash) {
  const std::string sound = sample_file();
  test::check_property("any bytes replaced", [&] {
    std::string file = sound;
    for (std::size_t edits = test::draw_length(); edits > 0; --edits)
      file[test::draw<std::size_t>(0, file.size())] = static_cast<char>(test::draw_bits());
    accepts(file);
  });
}

TEST(GgufWriter, RefusesTooMuchAndTooLittle) {
  const test::TempDir dir;
  GgufWriter writer(dir / "x", {}, {GgufTensor{.name = "a", .type = 0, .shape = {2}}});
  const float value[3] = {};
  EXPECT_THROW(writer.write(value, 12), Error);
  EXPECT_THROW(writer.commit(), Error);
  writer.write(value, 8);
  writer.commit();
  EXPECT_EQ(Gguf(dir / "x").tensors().size(), 1u);
  EXPECT_THROW(GgufWriter(dir / "y", {}, {GgufTensor{.name = "a", .type = 8, .shape = {31}}}), Error);
}

namespace {

void write_part(const std::filesystem::path& path, std::uint32_t number, std::uint32_t count,
                const std::string& tensor, float value) {
  GgufMetadata metadata;
  metadata.set_u32("split.no", number);
  metadata.set_u32("split.count", count);
  GgufWriter writer(path, metadata, {GgufTensor{.name = tensor, .type = 0, .shape = {1}}});
  writer.write(&value, 4);
  writer.commit();
}

}  // namespace

TEST(Gguf, OpensAllPartsOfASplitModel) {
  const test::TempDir dir;
  write_part(dir / "m-00001-of-00002.gguf", 0, 2, "a", 1);
  EXPECT_THROW(Gguf(dir / "m-00001-of-00002.gguf"), UserError) << "part 2 is missing";
  write_part(dir / "m-00002-of-00002.gguf", 1, 2, "b", 2);
  const Gguf model(dir / "m-00001-of-00002.gguf");
  ASSERT_EQ(model.tensors().size(), 2u);
  float value = 0;
  std::memcpy(&value, model.data(*model.find_tensor("b")).data(), 4);
  EXPECT_EQ(value, 2);
  EXPECT_THROW(Gguf(dir / "m-00002-of-00002.gguf"), UserError) << "not the first part";
  write_part(dir / "m-00002-of-00002.gguf", 1, 2, "a", 2);
  EXPECT_THROW(Gguf(dir / "m-00001-of-00002.gguf"), UserError) << "one name in two parts";
  write_part(dir / "m-00002-of-00002.gguf", 0, 2, "b", 2);
  EXPECT_THROW(Gguf(dir / "m-00001-of-00002.gguf"), UserError) << "part 1 under the name of part 2";
}

}  // namespace sinew
