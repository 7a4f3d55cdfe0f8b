#include "storage/checkpoint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "base/error.hpp"
#include "storage/checkpoint_manifest.hpp"
#include "support/property.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using test::slurp;
using test::spit;
using test::TempDir;
using testing::HasSubstr;
using Shape = std::vector<std::int64_t>;

std::vector<float> values(std::size_t count, float first) {
  std::vector<float> v(count);
  std::iota(v.begin(), v.end(), first);
  return v;
}

SliceData slice(const std::string& name, const Shape& shape, const Shape& offset, const Shape& extent,
                const std::vector<float>& data) {
  return {.name = name,
          .dtype = DType::F32,
          .shape = shape,
          .offset = offset,
          .extent = extent,
          .bytes = [&data] { return std::as_bytes(std::span(data)); }};
}

fs::path write_one(const fs::path& root, std::int64_t step) {
  const fs::path prepared = begin_checkpoint(root, step);
  const auto a = values(12, static_cast<float>(step)), b = values(5, 100);
  const std::vector<SliceData> weights{slice("weight/a", {3, 4}, {0, 0}, {3, 4}, a),
                                       slice("weight/b", {5}, {0}, {5}, b)};
  const std::vector<SliceData> moments{slice("first/a", {3, 4}, {0, 0}, {3, 4}, a),
                                       slice("second/a", {3, 4}, {0, 0}, {3, 4}, a)};
  TrainingState state;
  state.step = step;
  state.samples = 77;
  state.recent_losses = {0.1, 2.0 / 3};
  state.optimizer = "adamw";
  return commit_checkpoint(prepared, state,
                           {write_checkpoint_part(prepared, "weights", 0, weights),
                            write_checkpoint_part(prepared, "optimizer", 0, moments)},
                           {{"config.json", "{}"}});
}

TEST(Checkpoint, ReadsBackWhatWasWritten) {
  const TempDir dir;
  const fs::path path = write_one(dir.path(), 40);
  EXPECT_EQ(path.filename(), "step-40");
  const CheckpointReader reader(path);
  EXPECT_EQ(reader.state().step, 40);
  EXPECT_EQ(reader.state().samples, 77u);
  EXPECT_EQ(reader.state().recent_losses, (std::vector<double>{0.1, 2.0 / 3}));
  EXPECT_EQ(reader.text("config.json"), "{}");
  std::vector<float> a(12);
  reader.read_all(*reader.find("second/a"), reinterpret_cast<std::byte*>(a.data()));
  EXPECT_EQ(a, values(12, 40));
  EXPECT_EQ(reader.find("weight/none"), nullptr);
  // The files of weights hold the public names, so that any safetensors reader can use them.
  const Safetensors weights(path / "weights-r00000-00000.safetensors");
  EXPECT_NE(weights.find("a"), nullptr);
}

// A tensor cut into random boxes, one a rank, gives every region of itself.
PROPERTY(Checkpoint, AnyRegionOfAnySlicing) {
  const auto dims = test::draw<std::size_t>(1, 4);
  Shape shape(dims);
  std::vector<Shape> cuts(dims);  // per dimension: 0 = c0 < c1 < .. = size
  for (std::size_t d = 0; d < dims; ++d) {
    shape[d] = test::draw<std::int64_t>(1, 5);
    cuts[d] = {0};
    for (std::int64_t at = 1; at < shape[d]; ++at)
      if (test::draw_bool()) cuts[d].push_back(at);
    cuts[d].push_back(shape[d]);
  }
  const auto total = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  const auto whole = values(static_cast<std::size_t>(total), 0);
  const auto region = [&](const Shape& offset, const Shape& extent) {
    std::vector<float> out;
    for (std::int64_t flat = 0; flat < total; ++flat) {
      std::int64_t rest = flat;
      bool inside = true;
      for (std::size_t d = dims; d-- > 0; rest /= shape[d]) {
        const std::int64_t i = rest % shape[d];
        inside = inside && i >= offset[d] && i < offset[d] + extent[d];
      }
      if (inside) out.push_back(whole[static_cast<std::size_t>(flat)]);
    }
    return out;
  };
  const TempDir dir;
  const fs::path prepared = begin_checkpoint(dir.path(), 1);
  std::vector<CheckpointPart> parts;
  std::vector<std::size_t> at(dims, 0);
  for (int rank = 0;; ++rank) {
    Shape offset(dims), extent(dims);
    for (std::size_t d = 0; d < dims; ++d) {
      offset[d] = cuts[d][at[d]];
      extent[d] = cuts[d][at[d] + 1] - offset[d];
    }
    const auto data = region(offset, extent);
    const std::vector<SliceData> mine{slice("weight/t", shape, offset, extent, data)};
    parts.push_back(write_checkpoint_part(prepared, "weights", rank, mine));
    std::size_t d = 0;
    while (d < dims && ++at[d] + 1 == cuts[d].size()) at[d++] = 0;
    if (d == dims) break;
  }
  TrainingState state;
  state.step = 1;
  const CheckpointReader reader(commit_checkpoint(prepared, state, parts, {}));
  Shape offset(dims), extent(dims);
  for (std::size_t d = 0; d < dims; ++d) {
    offset[d] = test::draw<std::int64_t>(0, shape[d]);
    extent[d] = test::draw<std::int64_t>(1, shape[d] - offset[d] + 1);
  }
  const auto expected = region(offset, extent);
  std::vector<float> got(expected.size(), -1);
  reader.read(*reader.find("weight/t"), offset, extent, reinterpret_cast<std::byte*>(got.data()));
  HOLDS(got == expected);
}

TEST(Checkpoint, DamageIsNamedAndTheOneBeforeIsUsed) {
  const std::vector<std::pair<std::string, std::function<void(const fs::path&)>>> damages{
      {"weights-r00000-00000.safetensors: its checksum does not match",
       [](const fs::path& p) {
         std::string text = slurp(p / "weights-r00000-00000.safetensors");
         text.back() = static_cast<char>(text.back() ^ 1);
         spit(p / "weights-r00000-00000.safetensors", text);
       }},
      {"optimizer-r00000-00000.safetensors: 100 bytes instead of",
       [](const fs::path& p) { fs::resize_file(p / "optimizer-r00000-00000.safetensors", 100); }},
      {"optimizer-r00000-00001.safetensors: missing",
       [](const fs::path& p) { fs::remove(p / "optimizer-r00000-00001.safetensors"); }},
      {"half-written", [](const fs::path& p) { fs::remove(p / "manifest.json"); }},
      {"manifest.json: not a checkpoint manifest, or cut short",
       [](const fs::path& p) { fs::resize_file(p / "manifest.json", 200); }},
      {"manifest.json: its checksum does not match",
       [](const fs::path& p) {
         std::string text = slurp(p / "manifest.json");
         text.replace(text.find("\"samples\": 77"), 13, "\"samples\": 78");
         spit(p / "manifest.json", text);
       }},
  };
  for (const auto& [message, damage] : damages) {
    const TempDir dir;
    write_one(dir.path(), 10);
    damage(write_one(dir.path(), 20));
    std::vector<std::string> told;
    const auto reader =
        open_newest_checkpoint(dir.path(), [&](const std::string& text) { told.push_back(text); });
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(reader->state().step, 10);
    ASSERT_EQ(told.size(), 1u);
    EXPECT_THAT(told[0], HasSubstr(message));
    EXPECT_THAT(told[0], HasSubstr("step-20"));
    write_one(dir.path(), 20);  // takes the damaged one's place
    EXPECT_EQ(open_newest_checkpoint(dir.path(), [](const std::string&) { FAIL(); })->state().step, 20);
    EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 2);
  }
}

TEST(Checkpoint, NoneAndOnlyDamagedOnes) {
  const TempDir dir;
  const auto quiet = [](const std::string&) {};
  EXPECT_EQ(open_newest_checkpoint(dir.path(), quiet), nullptr);
  EXPECT_EQ(open_newest_checkpoint(dir / "absent", quiet), nullptr);
  fs::remove(write_one(dir.path(), 5) / "manifest.json");
  EXPECT_THROW(open_newest_checkpoint(dir.path(), quiet), UserError);
  begin_checkpoint(dir.path(), 9);
  EXPECT_EQ(list_checkpoints(dir.path()), (std::vector<std::int64_t>{5}));
  remove_unfinished_checkpoints(dir.path());
  EXPECT_FALSE(fs::exists(dir / "step-9.unfinished"));
  EXPECT_TRUE(remove_checkpoint(dir.path(), 5));
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Checkpoint, KeepPolicy) {
  const std::vector<std::int64_t> steps{100, 200, 300, 400, 500};
  EXPECT_EQ(checkpoints_to_remove(steps, 2, 0), (std::vector<std::int64_t>{100, 200, 300}));
  EXPECT_EQ(checkpoints_to_remove(steps, 1, 200), (std::vector<std::int64_t>{100, 300}));
  EXPECT_TRUE(checkpoints_to_remove(steps, 9, 0).empty());
}

TEST(CheckpointManifest, HostileOnesAreRefused) {
  CheckpointManifest manifest;
  manifest.files = {{.name = "f.safetensors", .bytes = 3, .xxh3 = "0"}};
  const auto error_with = [&](const CheckpointTensor& tensor) -> std::string {
    CheckpointManifest m = manifest;
    m.tensors = {tensor};
    try {
      parse_manifest(write_manifest(m), "manifest.json");
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  const auto tensor = [](Shape shape, std::vector<TensorSlice> slices) {
    return CheckpointTensor{
        .name = "weight/x", .dtype = DType::F32, .shape = std::move(shape), .slices = std::move(slices)};
  };
  EXPECT_EQ(error_with(tensor({4, 2}, {{"f.safetensors", "x", {0, 0}, {4, 2}}})), "");
  EXPECT_THAT(error_with(tensor({4, 2}, {{"f.safetensors", "x", {0, 0}, {3, 2}}})),
              HasSubstr("hold 6 of its 8"));
  EXPECT_THAT(error_with(tensor({4, 2}, {{"f.safetensors", "x", {1, 0}, {4, 2}}})), HasSubstr("outside"));
  EXPECT_THAT(error_with(tensor(
                  {4, 2}, {{"f.safetensors", "x", {0, 0}, {4, 2}}, {"f.safetensors", "y", {0, 0}, {1, 1}}})),
              HasSubstr("overlap"));
  EXPECT_THAT(error_with(tensor({4, 2}, {{"g.safetensors", "x", {0, 0}, {4, 2}}})), HasSubstr("not listed"));
  EXPECT_THAT(error_with(tensor({1LL << 40, 1LL << 40}, {})), HasSubstr("impossible shape"));
  EXPECT_THAT(error_with(tensor({-1}, {})), HasSubstr("impossible shape"));
  EXPECT_THAT(
      error_with(tensor({4}, {{"f.safetensors", "x", {std::numeric_limits<std::int64_t>::max()}, {4}}})),
      HasSubstr("outside"));
  manifest.files[0].name = "../../etc/passwd";
  EXPECT_THAT(error_with(tensor({1}, {})), HasSubstr("bad or repeated file name"));
  for (const char* text :
       {"", "[]", "{}", R"({"checksum":1,"checkpoint":{}})", R"({"checksum":"x","checkpoint":[]})"})
    EXPECT_THROW(parse_manifest(text, "m"), UserError) << text;
}

}  // namespace
}  // namespace sinew
