#pragma once

#include <functional>
#include <vector>

#include "tests/model/operation.hpp"

namespace tally::test {

/// Whether running the operations from the start fails.
using Fails = std::function<bool(const std::vector<Operation>&)>;

/// A shorter list that fails too, of which no single operation can be left out, and in which no
/// operand can be a smaller one of those that occur: delta debugging (A. Zeller and R. Hildebrandt,
/// "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28 (2), 2002), leaving parts out,
/// in turns with simpler operands. `operations` fails; each trial is one call of `fails`, and after
/// `trials_max` of them the shortest list so far is returned.
std::vector<Operation> shrink(std::vector<Operation> operations, Vocabulary vocabulary,
                              const Fails& fails, unsigned trials_max = 100'000);

}  // namespace tally::test
