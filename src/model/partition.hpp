// What part of a network a process holds, and whom its layers speak to.
//
// The rules that make a layout compute what one process computes:
//   * A batch's rows are cut between replicas, by whoever reads it; each row's tokens between the members of
//     `row`, by LanguageModel, which gets whole rows and takes those of its process.
//   * Every number a process reports (losses, loads, gradients) is its part: the sum over the processes
//     that hold the same thing is the whole. Work done alike on several processes is counted on one of them.
//   * So the gradient of a parameter is the sum over all processes that hold the same box of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/model_config.hpp"
#include "config/stages.hpp"
#include "ops/group.hpp"

namespace sinew {

// How a tensor lies over the processes of a pipeline stage.
enum class Spread {
  whole,   // the same on all
  tensor,  // cut over the tensor group
  expert,  // an expert's: on one member of the expert group
};

// The part of one tensor that a process holds: the box [offset, offset + shape) of `whole`.
struct PartSpec {
  TensorSpec whole;
  std::vector<std::int64_t> offset, shape;
  Spread spread = Spread::whole;
  std::size_t unit = 0;  // numbered in the order of part_specs()
};

// A unit is what is gathered and freed as one: the embedding, a layer (MTP layers too), the final norm with
// the head. Its autograd graph lies between enter() and leave(); the hooks are called in the forward pass
// and, by what they put into the graph, in the backward pass.
class UnitHooks {
 public:
  virtual ~UnitHooks() = default;
  // Memory for the parts of a model, in their order, and its pieces.
  virtual std::vector<at::Tensor> allocate(const std::vector<PartSpec>& parts, at::ScalarType dtype,
                                           at::Device device) = 0;
  // Told of the leaves that view it, once they are made.
  virtual void adopt(const std::vector<at::Tensor>& leaves) = 0;
  // Around writing a unit's weights from outside: between them all of the unit is there.
  virtual void begin_writing(std::size_t unit) = 0;
  virtual void end_writing(std::size_t unit) = 0;
  // Before a unit's forward pass: its weights are there when it returns. `x` is what flows into the unit;
  // what is returned must be used in its place. When the gradient comes back through it, all of the unit's
  // weights have theirs.
  virtual at::Tensor enter(std::size_t unit, const at::Tensor& x) = 0;
  // After it: the weights may go. In the backward pass they are there again once the gradient has passed.
  virtual at::Tensor leave(std::size_t unit, const at::Tensor& y) = 0;
};

struct Partition {
  std::vector<StagePart> chunks;  // in the order of `chunk` of schedule actions; empty: the whole network
  GroupPtr tensor;                // heads, widths and vocabulary; the members of `row` that differ in these
  GroupPtr context;               // pieces of the sequence between which attention goes round
  GroupPtr row;                   // all that hold pieces of the same rows: context x tensor
  GroupPtr batch;                 // all that hold other rows of the same micro-batch: data x shard
  GroupPtr expert;                // experts; member r holds [r, r+1) * E / size
  // The two hops of node-limited dispatch, or null: `expert` is across x in_node.
  GroupPtr expert_in_node, expert_across_nodes;
  bool fp8_dispatch = false;
  std::shared_ptr<UnitHooks> hooks;  // or null
};

std::vector<StagePart> chunks_of(const Partition& partition, const ModelConfig& config);

// The tensors a process holds, in tensor_specs() order, grouped by unit: [embedding], layers, [final norm and
// head], [MTP layers]; those of absent parts left out.
//
// Cut by tensor: rows of q_proj, q_b_proj, kv_b_proj, k_proj, v_proj, of dense gate_proj and up_proj, of
// embed_tokens and lm_head; columns of o_proj and dense down_proj. Shared experts and MTP's eh_proj work on
// each member's own tokens and are whole.
std::vector<PartSpec> part_specs(const ModelConfig& config, const Partition& partition);

}  // namespace sinew
