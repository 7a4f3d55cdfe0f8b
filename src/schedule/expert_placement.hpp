// Where experts live for inference: by measured load, with redundant copies of hot ones (the expert-parallel
// load balancer that DeepSeek published with DeepSeek-V3, section 3.4; its hierarchical and global policies).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sinew {

struct PlacementOptions {
  int devices = 1;
  int nodes = 1;   // devices are numbered node by node
  int slots = 0;   // experts a device holds; devices x slots is at least the number of experts
  int groups = 1;  // equal, adjacent groups of experts that a node-limited gate chooses as a whole
};

struct Placement {
  std::vector<std::vector<int>> experts;  // [device][slot]: an expert's number
  std::vector<int> copies;                // of each expert
  std::vector<double> load;               // of each device, an expert's load shared evenly by its copies
  double imbalance() const;               // the largest load over the mean
};

// A pure function of the loads (not negative; ties go to the lower number). Where groups divide over nodes
// every copy of an expert stays on the node of its group, so that node-limited dispatch keeps its promise;
// else copies go anywhere. Every slot is used. Throws UserError when the sizes do not fit.
Placement place_experts(std::span<const double> loads, const PlacementOptions& options);

}  // namespace sinew
