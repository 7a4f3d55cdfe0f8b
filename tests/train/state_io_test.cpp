#include "train/state_io.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "train/step_bench.hpp"

namespace sinew {
namespace {

using testing::HasSubstr;

// What two processes write of a model: each half of every tensor's rows.
std::vector<CheckpointPart> halves(const ModelConfig& config) {
  std::vector<CheckpointPart> parts(2);
  for (const auto& spec : tensor_specs(config))
    for (const char* kind : {"weight/", "first/", "second/"}) {
      if (spec.buffer && kind != std::string("weight/")) continue;
      for (std::int64_t p = 0; p < 2; ++p) {
        const auto begin = spec.shape[0] * p / 2, end = spec.shape[0] * (p + 1) / 2;
        TensorSlice slice{.file = "f",
                          .key = spec.name,
                          .offset = std::vector<std::int64_t>(spec.shape.size(), 0),
                          .shape = spec.shape};
        slice.offset[0] = begin;
        slice.shape[0] = end - begin;
        parts[static_cast<std::size_t>(p)].tensors.push_back(
            {.name = kind + spec.name, .dtype = DType::F32, .shape = spec.shape, .slices = {slice}});
      }
    }
  return parts;
}

std::string problem_of(const std::vector<CheckpointPart>& parts, const ModelConfig& config) {
  try {
    check_complete(parts, config);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

CheckpointTensor& tensor_of(CheckpointPart& part, const std::string& name) {
  for (auto& tensor : part.tensors)
    if (tensor.name == name) return tensor;
  throw std::runtime_error("no " + name);
}

TEST(CheckComplete, NamesWhatIsMissingAndWhatIsThereTwice) {
  const ModelConfig config = bench_preset("tiny").model;
  const auto whole = halves(config);
  EXPECT_EQ(problem_of(whole, config), "");

  const auto first_with = [&](const std::string& word) {
    for (const auto& tensor : whole[1].tensors)
      if (tensor.name.find(word) != std::string::npos) return tensor.name;
    throw std::runtime_error("no tensor of " + word);
  };
  const auto expert = first_with("experts"), moment = "first/" + expert.substr(expert.find('/') + 1);

  auto parts = whole;  // an expert that no process wrote
  for (auto& part : parts)
    std::erase_if(part.tensors, [&](const auto& tensor) { return tensor.name == expert; });
  EXPECT_THAT(problem_of(parts, config), HasSubstr("no process holds " + expert));

  parts = whole;  // its moments
  for (auto& part : parts)
    std::erase_if(part.tensors, [&](const auto& tensor) { return tensor.name == moment; });
  EXPECT_THAT(problem_of(parts, config), HasSubstr("no process holds " + moment));

  parts = whole;  // half of it
  std::erase_if(parts[1].tensors, [&](const auto& tensor) { return tensor.name == expert; });
  EXPECT_THAT(problem_of(parts, config), AllOf(HasSubstr(expert), HasSubstr("hold ")));

  parts = whole;  // one half twice, the other never: the count is right
  tensor_of(parts[1], expert).slices = tensor_of(parts[0], expert).slices;
  EXPECT_THAT(problem_of(parts, config), AllOf(HasSubstr(expert), HasSubstr("overlap")));

  parts = whole;  // second moments written by both
  const auto second = "second/" + expert.substr(expert.find('/') + 1);
  parts[1].tensors.push_back(tensor_of(parts[0], second));
  EXPECT_THAT(problem_of(parts, config), AllOf(HasSubstr(second), HasSubstr("overlap")));
}

}  // namespace
}  // namespace sinew
