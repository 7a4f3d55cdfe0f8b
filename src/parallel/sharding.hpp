// Data and fully sharded data parallelism: one replica's parameters, gradients and optimizer state spread
// over the shard axis (ZeRO stages 1 to 3, Rajbhandari et al. 2020; per block as FSDP, Zhao et al. 2023),
// replicas kept alike along the others.
//
// Every unit of the network (model/partition.hpp) has one flat run of weights for each way tensors are
// spread, padded to a multiple of the processes that share it; each of these owns an equal piece. What is
// held:
//
//             zero 1              zero 2                       zero 3
//   weights   all, always         all, always                  own piece; all of a unit while it is used
//   gradients all, always (fp32)  own piece; all of a unit     as zero 2
//                                 during its backward pass
//   state     own piece (fp32)    own piece                    own piece
//
// With zero 3 a unit's weights are gathered just before its forward and backward pass while those of the unit
// after it are already on their way; with zero 2 and 3 its gradients are reduce-scattered during the backward
// pass of the units before it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "comm/mesh.hpp"
#include "model/partition.hpp"

namespace sinew {

// What this process keeps of one parameter: elements [begin, end) of its flattened box.
struct StatePiece {
  std::size_t parameter = 0;  // index in part_specs()
  std::int64_t begin = 0, end = 0;
  at::Tensor weight;    // [end - begin] in the model's type; live
  at::Tensor gradient;  // [end - begin] fp32; live
  bool counts = true;   // of all processes' copies of this piece, the one that sums over processes take
};

class Sharding : public UnitHooks {
 public:
  // `embedding_ranks`: world ranks (this one among them) that hold the embedding's weights in different
  // stages of the pipeline; fewer than two: nobody shares it.
  explicit Sharding(std::shared_ptr<Mesh> mesh, std::vector<int> embedding_ranks = {});
  ~Sharding() override;

  std::vector<at::Tensor> allocate(const std::vector<PartSpec>& parts, at::ScalarType dtype,
                                   at::Device device) override;
  void adopt(const std::vector<at::Tensor>& leaves) override;
  void begin_writing(std::size_t unit) override;
  void end_writing(std::size_t unit) override;
  at::Tensor enter(std::size_t unit, const at::Tensor& x) override;
  at::Tensor leave(std::size_t unit, const at::Tensor& y) override;

  // After each backward pass: no unit is open any more.
  void end_backward();
  // Once a step, after the last backward pass: pieces' gradients become the sums over all processes.
  void reduce_gradients();
  void zero_gradients();
  // For what works on whole matrices (Muon): `values[i]` [end - begin] fp32 of piece i, undefined where
  // `wanted(parameter)` is false; `f(i, whole)` is given all of the parameter [rows, columns], gathered from
  // the processes that share it and joined over the tensor group, one run at a time. All of them call it.
  void each_whole(const std::vector<at::Tensor>& values, const std::function<bool(std::size_t)>& wanted,
                  const std::function<void(std::size_t, const at::Tensor&)>& f);
  // After weights of pieces were written: the other processes see them.
  void publish_weights();

  const std::vector<StatePiece>& pieces() const { return pieces_; }
  const std::vector<PartSpec>& parts() const { return parts_; }
  // Whether this process writes buffers (which all of a stage hold alike) into checkpoints.
  bool writes_buffers() const;
  Mesh& mesh() const { return *mesh_; }

  // For the backward nodes of enter() and leave().
  void open(std::size_t unit);
  void close(std::size_t unit);

 private:
  struct Flat;
  void lay_out(at::ScalarType dtype, at::Device device);
  void choose_groups(Flat& flat) const;
  void make_pieces();
  // All of a matrix of which the members of the tensor group hold parts.
  at::Tensor joined(const at::Tensor& box, const PartSpec& part) const;
  void start_gather(Flat& flat);
  void ensure_weights(std::size_t unit);
  void prefetch(std::size_t unit);
  void drop_weights(std::size_t unit);
  void close_gradients(std::size_t unit);
  void start_reduction(Flat& flat);
  void finish_reductions();
  template <class F>
  void each_flat(std::size_t unit, F f);

  std::shared_ptr<Mesh> mesh_;
  std::vector<int> embedding_ranks_;
  int zero_ = 1;
  bool hooked_ = false;  // enter() and leave() have something to do
  std::vector<PartSpec> parts_;
  std::vector<std::unique_ptr<Flat>> flats_;  // by unit, then by spread
  std::vector<Flat*> reducing_;
  std::vector<StatePiece> pieces_;
};

}  // namespace sinew
