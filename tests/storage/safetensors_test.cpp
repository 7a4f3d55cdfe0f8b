#include "storage/safetensors.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "support/property.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// A file with this header text and `data` zero bytes.
std::string file_with(const std::string& header, std::size_t data) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data, '\0');
}

bool accepts(const std::string& file) {
  try {
    parse_safetensors(bytes_of(file), "test");
    return true;
  } catch (const UserError&) {
    return false;
  }
}

std::string tensor(const std::string& fields) { return R"({"a":{)" + fields + "}}"; }

}  // namespace

TEST(Safetensors, AgreesWithTheReferenceReaderOnEveryFile) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "formats" / "safetensors";
  const auto manifest = nlohmann::json::parse(test::slurp(folder / "manifest.json"));
  ASSERT_GE(manifest["files"].size(), 40u);
  for (const auto& entry : manifest["files"]) {
    const std::string name = entry["file"];
    const std::string file = test::slurp(folder / name);
    EXPECT_EQ(accepts(file), entry["verdict"] == "accept") << name;
    if (entry["verdict"] != "accept") continue;
    std::vector<std::string> names;
    for (const auto& info : parse_safetensors(bytes_of(file), name).tensors) names.push_back(info.name);
    std::sort(names.begin(), names.end());
    auto expected = entry["tensors"].get<std::vector<std::string>>();
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(names, expected) << name;
  }
}

TEST(Safetensors, RejectsWhatTheFormatForbids) {
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  EXPECT_TRUE(accepts(file_with(tensor(good), 4)));
  EXPECT_FALSE(accepts(file_with("", 0)));
  EXPECT_FALSE(accepts(file_with("[]", 0)));
  EXPECT_FALSE(accepts(file_with("null", 0)));
  EXPECT_FALSE(accepts(file_with(std::string("{}\0\0", 4), 0))) << "NUL padding";
  EXPECT_FALSE(accepts(file_with(R"({"a":{)" + good + R"(},"a":{)" + good + "}}", 4))) << "a name twice";
  EXPECT_FALSE(accepts(file_with(tensor(good + R"(,"dtype":"F32")"), 4))) << "a field twice";
  EXPECT_FALSE(accepts(file_with(R"({"__metadata__":{},"__metadata__":{}})", 0)));
  EXPECT_TRUE(accepts(file_with(R"({"__metadata__":null})", 0)));
  EXPECT_FALSE(accepts(file_with(R"({"a":null})", 0)));
  EXPECT_FALSE(accepts(file_with(R"({"a":[]})", 0)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":"F32","shape":[-0],"data_offsets":[0,0])"), 0)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":"F32","shape":[1e0],"data_offsets":[0,4])"), 4)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), 4)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":"F32","shape":{},"data_offsets":[0,4])"), 4)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":["F32"],"shape":[1],"data_offsets":[0,4])"), 4)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), 4)));
  EXPECT_FALSE(accepts(file_with("{\"\xff\":{" + good + "}}", 4))) << "not UTF-8";
  EXPECT_FALSE(accepts(file_with(R"({"\ud800":{)" + good + "}}", 4))) << "half a surrogate pair";
  EXPECT_TRUE(accepts(file_with(tensor(good + R"(,"x":{"y":[1,{"z":null}],"dtype":"?"},"w":-1.5)"), 4)));
  EXPECT_TRUE(accepts(file_with(tensor(R"("dtype":"F32","shape":[],"data_offsets":[0,4])"), 4)))
      << "a scalar";
  EXPECT_TRUE(accepts(file_with(" \n\t\r{} \n", 0)));
}

TEST(Safetensors, NestingIsBoundedWhereTheReferenceBoundsIt) {
  const auto nested = [](int levels) {
    return tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":)" + std::string(levels, '[') +
                  std::string(levels, ']'));
  };
  EXPECT_TRUE(accepts(file_with(nested(125), 4)));
  EXPECT_FALSE(accepts(file_with(nested(126), 4)));
}

TEST(Safetensors, SubByteTypesHaveWholeBytesInAll) {
  EXPECT_TRUE(accepts(file_with(tensor(R"("dtype":"F4","shape":[2],"data_offsets":[0,1])"), 1)));
  EXPECT_FALSE(accepts(file_with(tensor(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])"), 1)));
  EXPECT_TRUE(accepts(file_with(tensor(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3])"), 3)));
  EXPECT_TRUE(accepts(file_with(tensor(R"("dtype":"C64","shape":[1],"data_offsets":[0,8])"), 8)));
}

TEST(Safetensors, ErrorsNameFileTensorAndRule) {
  try {
    parse_safetensors(bytes_of(file_with(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4)),
                      "model.st");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "model.st: tensor 'a': shape and dtype need 64 bits, data_offsets span 4 bytes");
  }
}

PROPERTY(Safetensors, DamagedFilesNeverCrash) {
  std::string file =
      file_with(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}})", 12);
  for (std::size_t edits = test::draw_length(); edits > 0; --edits)
    file[test::draw<std::size_t>(0, file.size())] = static_cast<char>(test::draw_bits());
  file.resize(file.size() - test::draw<std::size_t>(0, 4));
  accepts(file);
}

PROPERTY(SafetensorsWriter, WritesWhatTheReaderReads) {
  const test::TempDir dir;
  std::set<std::string> names;
  for (std::size_t n = test::draw_length(); n > 0; --n) names.insert(test::draw_bytes());
  std::vector<TensorInfo> infos;
  std::vector<std::string> data;
  for (const auto& name : names) {
    TensorInfo info{.name = name, .dtype = test::draw_of({DType::F32, DType::BF16, DType::U8, DType::I64})};
    bool ascii = name != "__metadata__";
    for (const char c : name) ascii = ascii && static_cast<unsigned char>(c) < 0x80;
    if (!ascii) continue;
    info.shape =
        test::draw_list(test::draw<std::size_t>(0, 4), [] { return test::draw<std::int64_t>(0, 5); });
    data.emplace_back(static_cast<std::size_t>(info.elements()) * dtype_size(info.dtype),
                      static_cast<char>('a' + data.size() % 26));
    infos.push_back(info);
  }
  SafetensorsWriter writer(dir / "x.safetensors", infos, {{"format", "pt"}});
  for (const auto& piece : data) writer.write(piece.data(), piece.size());
  writer.commit();
  const Safetensors file(dir / "x.safetensors");
  HOLDS(file.metadata().at("format") == "pt");
  HOLDS(file.tensors().size() == infos.size());
  for (std::size_t i = 0; i < infos.size(); ++i) {
    const TensorInfo* found = file.find(infos[i].name);
    HOLDS(found != nullptr);
    HOLDS(found->shape == infos[i].shape);
    HOLDS(found->dtype == infos[i].dtype);
    const auto bytes = file.data(*found);
    HOLDS(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == data[i]);
  }
}

TEST(SafetensorsWriter, UnfinishedFilesDoNotAppear) {
  const test::TempDir dir;
  const std::vector<TensorInfo> infos{{.name = "a", .dtype = DType::F32, .shape = {2}}};
  SafetensorsWriter writer(dir / "x", infos);
  const float value = 1;
  writer.write(&value, 4);
  EXPECT_THROW(writer.commit(), Error);
  EXPECT_FALSE(std::filesystem::exists(dir / "x"));
  writer.write(&value, 4);
  EXPECT_THROW(writer.write(&value, 1), Error);
  writer.commit();
  EXPECT_EQ(Safetensors(dir / "x").tensors().size(), 1u);
}

namespace {

void write_tensor(const std::filesystem::path& path, const std::string& name, float value) {
  SafetensorsWriter writer(path, {{.name = name, .dtype = DType::F32, .shape = {1}}});
  writer.write(&value, 4);
  writer.commit();
}

}  // namespace

TEST(ModelWeights, ReadsShardsByTheirIndex) {
  const test::TempDir dir;
  write_tensor(dir / "one.safetensors", "b", 1);
  write_tensor(dir / "two.safetensors", "a", 2);
  EXPECT_THROW(ModelWeights(dir.path()), UserError);
  const auto index = [&](const std::string& map) {
    test::spit(dir / "model.safetensors.index.json",
               R"({"metadata":{"total_size":8},"weight_map":)" + map + "}");
  };
  index(R"({"b":"one.safetensors","a":"two.safetensors"})");
  const ModelWeights weights(dir.path());
  ASSERT_EQ(weights.tensors().size(), 2u);
  EXPECT_EQ(weights.tensors()[0].name, "a");
  float value = 0;
  std::memcpy(&value, weights.data("a").data(), 4);
  EXPECT_EQ(value, 2);
  EXPECT_EQ(weights.find("c"), nullptr);
  EXPECT_THROW(weights.data("c"), UserError);
  for (const char* bad :
       {R"({"b":"two.safetensors"})", R"({"b":"none.safetensors"})", R"({"b":"../x/one.safetensors"})",
        R"({"b":"/etc/passwd"})", R"({"b":""})", R"({"b":1})", R"([])", "{"}) {
    index(bad);
    EXPECT_THROW(ModelWeights(dir.path()), UserError) << bad;
  }
}

}  // namespace sinew
