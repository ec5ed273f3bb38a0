// SPDX-License-Identifier: MIT
#include "cluster.h"

namespace gpusim {

const Registry& handlers() {
  static const Registry kRegistry = [] {
    Registry registry;
    register_arithmetic(registry);
    register_conversions(registry);
    register_moves(registry);
    register_accesses(registry);
    register_threads(registry);
    register_barriers(registry);
    register_bulk_copies(registry);
    register_matrices(registry);
    register_matrix_accesses(registry);
    register_calls(registry);
    register_cluster_launches(registry);
    register_async_stores(registry);
    register_tensor_map_edits(registry);
    register_register_pool(registry);
    return registry;
  }();
  return kRegistry;
}

}  // namespace gpusim
