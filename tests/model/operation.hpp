#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tally::test {

/// One step of a model as a value: what is done, and to what.
///
/// Operands that name things (n17: a name, d3: a directory, h2: a handle) are numbers which the
/// operation that makes the thing gives it, and which it keeps wherever it moves. So an operation
/// means the same when others before it are left out; where its things are missing it does nothing.
struct Operation {
  static constexpr std::size_t operands_max = 4;

  uint8_t kind = 0;  ///< its place in the vocabulary
  std::array<uint32_t, operands_max> operands = {};

  friend bool operator==(const Operation&, const Operation&) = default;
};

/// How an operation is written: its verb, and one letter for each operand; '#' is a plain number.
struct OperationForm {
  const char* verb;
  const char* operands;
};

/// All operations of a model, by their kind.
using Vocabulary = std::span<const OperationForm>;

/// "create n17 d3 4096 8".
std::string text_of(const Operation& operation, Vocabulary vocabulary);

/// The reverse. Throws std::invalid_argument for what is no operation.
Operation parse_operation(const std::string& line, Vocabulary vocabulary);

/// A script: one operation a line. Lines that are empty or begin with '#' say nothing.
std::string text_of(const std::vector<Operation>& operations, Vocabulary vocabulary);
std::vector<Operation> parse_script(const std::string& text, Vocabulary vocabulary);

}  // namespace tally::test
