#include "tests/model/shrink.hpp"

#include <algorithm>
#include <cstring>
#include <set>

namespace tally::test {

namespace {

class Shrinker {
 public:
  Shrinker(std::vector<Operation> operations, Vocabulary vocabulary, const Fails& fails,
           unsigned trials_max)
      : vocabulary_(vocabulary),
        fails_(fails),
        trials_left_(trials_max),
        shortest_(std::move(operations)) {}

  std::vector<Operation> run() {
    do {
      leave_out();
    } while (simplify());
    return std::move(shortest_);
  }

 private:
  /// Whether `candidate` is the new shortest list.
  bool keep_if_it_fails(std::vector<Operation> candidate) {
    if (trials_left_ == 0) return false;
    --trials_left_;
    if (!fails_(candidate)) return false;
    shortest_ = std::move(candidate);
    return true;
  }

  /// Tries without ever smaller parts.
  void leave_out() {
    std::size_t part = std::max<std::size_t>(shortest_.size() / 2, 1);
    while (trials_left_ > 0) {
      bool removed = false;
      // From the end: what comes late depends on what comes early, seldom the other way round.
      for (std::size_t end = shortest_.size(); end > 0;) {
        const std::size_t first = end - std::min(end, part);
        std::vector<Operation> fewer = shortest_;
        fewer.erase(fewer.begin() + static_cast<long>(first),
                    fewer.begin() + static_cast<long>(end));
        removed |= keep_if_it_fails(std::move(fewer));
        end = first;
      }
      if (part == 1 && !removed) return;
      if (!removed) part = std::max<std::size_t>(part / 2, 1);
      part = std::clamp<std::size_t>(part, 1, std::max<std::size_t>(shortest_.size(), 1));
    }
  }

  /// Tries smaller operands of the same sort. Whether any of them did.
  bool simplify() {
    bool simplified = false;
    for (std::size_t i = 0; i < shortest_.size(); ++i)
      for (std::size_t place = 0; letter_of(shortest_[i], place) != '\0'; ++place)
        simplified |= simplify(i, place);
    return simplified;
  }

  bool simplify(std::size_t i, std::size_t place) {
    const uint32_t number = shortest_[i].operands[place];
    for (const uint32_t smaller : numbers_like(letter_of(shortest_[i], place))) {
      if (smaller >= number) return false;
      std::vector<Operation> simpler = shortest_;
      simpler[i].operands[place] = smaller;
      if (keep_if_it_fails(std::move(simpler))) return true;
    }
    return false;
  }

  [[nodiscard]] char letter_of(const Operation& operation, std::size_t place) const {
    return place < Operation::operands_max ? vocabulary_[operation.kind].operands[place] : '\0';
  }

  /// The numbers of things of this sort that occur, and 0.
  [[nodiscard]] std::set<uint32_t> numbers_like(char letter) const {
    std::set<uint32_t> numbers = {0};
    if (letter == '#') return numbers;
    for (const Operation& operation : shortest_)
      for (std::size_t place = 0; letter_of(operation, place) != '\0'; ++place)
        if (letter_of(operation, place) == letter) numbers.insert(operation.operands[place]);
    return numbers;
  }

  const Vocabulary vocabulary_;
  const Fails& fails_;
  unsigned trials_left_;
  std::vector<Operation> shortest_;
};

}  // namespace

std::vector<Operation> shrink(std::vector<Operation> operations, Vocabulary vocabulary,
                              const Fails& fails, unsigned trials_max) {
  return Shrinker(std::move(operations), vocabulary, fails, trials_max).run();
}

}  // namespace tally::test
