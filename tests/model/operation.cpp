#include "tests/model/operation.hpp"

#include <charconv>
#include <cstring>
#include <sstream>
#include <stdexcept>

namespace tally::test {

namespace {

// Numbers index plain vectors: a script with larger ones than any run makes is a mistake.
constexpr uint32_t number_max = 100'000'000;

uint32_t parse_operand(const std::string& word, char letter) {
  const char* first = word.data();
  const char* const end = word.data() + word.size();
  uint32_t number = 0;
  if (letter != '#' && (first == end || *first++ != letter))
    throw std::invalid_argument("'" + word + "' should begin with '" + letter + "'");
  const auto [rest, error] = std::from_chars(first, end, number);
  if (error != std::errc() || rest != end || (letter != '#' && number > number_max))
    throw std::invalid_argument("'" + word + "' is no number to use here");
  return number;
}

}  // namespace

std::string text_of(const Operation& operation, Vocabulary vocabulary) {
  const OperationForm& form = vocabulary[operation.kind];
  std::string text = form.verb;
  for (std::size_t i = 0; form.operands[i] != '\0'; ++i) {
    text += ' ';
    if (form.operands[i] != '#') text += form.operands[i];
    text += std::to_string(operation.operands[i]);
  }
  return text;
}

Operation parse_operation(const std::string& line, Vocabulary vocabulary) {
  std::istringstream words(line);
  std::string word;
  words >> word;
  for (std::size_t kind = 0; kind < vocabulary.size(); ++kind) {
    const OperationForm& form = vocabulary[kind];
    if (word != form.verb) continue;
    Operation operation{.kind = static_cast<uint8_t>(kind), .operands = {}};
    for (std::size_t i = 0; form.operands[i] != '\0'; ++i) {
      if (!(words >> word)) throw std::invalid_argument("operands are missing: " + line);
      operation.operands[i] = parse_operand(word, form.operands[i]);
    }
    if (words >> word) throw std::invalid_argument("too many operands: " + line);
    return operation;
  }
  throw std::invalid_argument("no such operation: " + line);
}

std::string text_of(const std::vector<Operation>& operations, Vocabulary vocabulary) {
  std::string text;
  for (const Operation& operation : operations)
    text += text_of(operation, vocabulary) + '\n';
  return text;
}

std::vector<Operation> parse_script(const std::string& text, Vocabulary vocabulary) {
  std::vector<Operation> operations;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() == '#') continue;
    operations.push_back(parse_operation(line, vocabulary));
  }
  return operations;
}

}  // namespace tally::test
